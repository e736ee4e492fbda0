"""`OnnxRunner`: an artifact in unmodified ONNX Runtime, tokens in, logits out.

onnxruntime runs the graph for full logits; onnxruntime-genai loads the directory for
tokenization and generation. Both run on the CPU here, whatever provider the artifact is for:
operators without an FP16 kernel compute in FP32 there. Neither is given anything that `admission`
does not know.
"""

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError, MissingDependency, TokenizerError
from phiquant.host import foreign
from phiquant.phi.tokenizer.documents import read_document
from phiquant.quantization.grid import Floats
from phiquant.targets.admission import read_settings
from phiquant.targets.onnx.admission import check_artifact
from phiquant.targets.target import Generation

NUMPY_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxRunner:
    """An ONNX artifact, loaded. Not thread-safe; close it to free its memory."""

    def __init__(self, path: Path) -> None:
        """Load `path`. Raises MissingDependency or, if the runtime refuses it, ArtifactError."""
        try:
            import onnxruntime
            import onnxruntime_genai
        except ImportError as error:
            raise MissingDependency("onnxruntime-genai", "running an ONNX artifact") from error
        if not (path / "genai_config.json").is_file():
            raise ArtifactError(f"expected an ONNX artifact's directory, found none at {path}")
        graph = check_artifact(path)
        self._path = path
        self._genai: Any = onnxruntime_genai
        self._session: Any = _session(onnxruntime, graph)
        self._model: Any = None
        self._tokenizer: Any = None
        self._runtime = (
            f"ONNX Runtime GenAI {version('onnxruntime-genai')} "
            f"(onnxruntime {onnxruntime.__version__})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._session = self._tokenizer = self._model = None

    @property
    def runtime(self) -> str:
        """Versions of onnxruntime-genai and onnxruntime."""
        return self._runtime

    @property
    def slow(self) -> bool:
        """ONNX Runtime's CPU kernels are fast."""
        return False

    def tokenize(self, text: str) -> list[int]:
        """The tokens of `text` by genai's tokenizer, special tokens parsed, none added."""
        self._load()
        return [int(token) for token in self._tokenizer.encode(text)]

    @property
    def chat_template(self) -> str | None:
        """The template where genai looks for it: tokenizer_config.json, then a file of its own.

        Raises ArtifactError for a tokenizer_config.json that is malformed.
        """
        file = self._path / "chat_template.jinja"
        try:
            config = read_document(self._path / "tokenizer_config.json")
            if isinstance(config.get("chat_template"), str):
                return str(config["chat_template"])
            if not foreign.present(file):
                return None
            return foreign.read_text(file, foreign.TEMPLATE, self._path)
        except TokenizerError as error:
            raise ArtifactError(str(error)) from error

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt for `messages` by genai's own template engine.

        Raises ArtifactError for a template that it cannot render.
        """
        self._load()
        turns = json.dumps([dict(message) for message in messages])
        try:
            return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True))
        except Exception as error:  # genai raises whatever it meets
            raise ArtifactError(f"onnxruntime-genai does not render it: {error}") from error

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty KV cache, as float32; of
        its `last` tokens only, where that is given.

        The whole sequence goes through at once: which of LongRoPE's factors hold depends on it.
        """
        ids = np.asarray(tokens, np.int64)[None]
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        for given in self._session.get_inputs():
            if given.name == "position_ids":
                feeds[given.name] = np.arange(ids.shape[1], dtype=np.int64)[None]
            elif given.name.startswith("past_key_values."):
                shape = (1, given.shape[1], 0, self._head_size(given))
                feeds[given.name] = np.zeros(shape, NUMPY_TYPES[given.type])
        (output,) = self._session.run(["logits"], feeds)
        if output.shape[1] != ids.shape[1]:
            raise ArtifactError(
                f"{self._path} gives the logits of {output.shape[1]} position, not of all; make it "
                "without last_logits to measure it"
            )
        logits: Floats = output[0, -(last or len(tokens)) :].astype(np.float32)
        return logits

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily by genai's own loop, up to its stop or `limit` tokens.

        The token that ends the sequence is not part of the result.
        """
        self._load()
        genai = self._genai
        parameters = genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=len(prompt) + limit, do_sample=False, min_length=0)
        generator = genai.Generator(self._model, parameters)
        generator.append_tokens(np.asarray(prompt, np.int32))
        began = time.perf_counter()
        tokens: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
        seconds = time.perf_counter() - began
        stopped = bool(tokens) and self.stops_at(tokens[-1])
        if stopped:
            tokens.pop()
        return Generation(tuple(tokens), self._tokenizer.decode(tokens), stopped, seconds)

    def stops_at(self, token: int) -> bool:
        """Whether genai ends a generation at `token`."""
        self._load()
        return token in {int(end) for end in self._tokenizer.eos_token_ids}

    def _head_size(self, given: Any) -> int:  # noqa: ANN401 (onnxruntime is untyped)
        size = given.shape[3]
        if isinstance(size, int):
            return size
        config = read_settings(self._path / "genai_config.json")
        return int(config["model"]["decoder"]["head_size"])

    def _load(self) -> None:
        if self._tokenizer is not None:
            return
        try:
            settings = self._genai.Config(str(self._path))
            settings.clear_providers()
            self._model = self._genai.Model(settings)
            self._tokenizer = self._genai.Tokenizer(self._model)
        except Exception as error:  # genai raises whatever it meets
            raise ArtifactError(
                f"onnxruntime-genai {version('onnxruntime-genai')} does not load {self._path}: "
                f"{error}"
            ) from error


def _session(onnxruntime: Any, graph: Path) -> Any:  # noqa: ANN401
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises whatever it meets
        raise ArtifactError(
            f"onnxruntime {onnxruntime.__version__} does not load {graph}: {error}"
        ) from error
