"""`OpenVinoRunner`: an artifact in OpenVINO for logits and in openvino_genai for generation.

Logits are computed with float32 activations (INFERENCE_PRECISION_HINT): on a processor with
bfloat16 arithmetic the plugin would round to that, whatever the artifact. Generation takes
openvino_genai's pipeline. Both are given the properties that the artifact is to be run with
(`running`); all else is as the artifact's own `rt_info` has it, as far as `admission` lets it.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError, MissingDependency
from phiquant.phi.config import read_architecture, read_config
from phiquant.quantization.grid import Floats
from phiquant.targets.openvino.admission import check_artifact
from phiquant.targets.openvino.running import properties
from phiquant.targets.openvino.signal_stack import kept_signal_stack
from phiquant.targets.openvino.xml_reader import MODEL
from phiquant.targets.target import Generation

PIECE = 512
"""Tokens per step of a long sequence: bounds the attention scores."""


def threads() -> dict[str, int]:
    """Use the cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return {"INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0))}
    return {}


def _inputs(tokens: npt.NDArray[np.int32], past: int) -> dict[str, npt.NDArray[np.generic]]:
    """What the model is given for `tokens` (batch, count) after `past` cached ones."""
    batch, count = tokens.shape
    return {
        "input_ids": tokens.astype(np.int64),
        "attention_mask": np.ones((batch, past + count), np.int64),
        "position_ids": np.tile(np.arange(past, past + count), (batch, 1)),
        "beam_idx": np.arange(batch, dtype=np.int32),
    }


class OpenVinoRunner:
    """An OpenVINO artifact, loaded. Not thread-safe; close it to free its memory."""

    def __init__(self, path: Path) -> None:
        """Load `path`. Raises MissingDependency or, if the runtime refuses it, ArtifactError."""
        try:
            import openvino
            import openvino_genai
            import openvino_tokenizers  # noqa: F401 (registers the tokenizers' operators)
        except ImportError as error:
            raise MissingDependency("openvino-genai", "running an OpenVINO artifact") from error
        self._path = path if path.is_dir() else path.parent
        check_artifact(self._path)
        self._runtime = f"openvino {openvino.__version__} on a CPU"
        try:
            with kept_signal_stack():
                compiled = self._compile()
                self._tokenizer: Any = openvino_genai.Tokenizer(str(self._path))
        except Exception as error:  # the runtime raises RuntimeError for whatever it meets
            raise ArtifactError(f"{self._runtime} does not load {path}: {error}") from error
        self._compiled: Any = compiled
        self._request: Any = compiled.create_infer_request()
        self._pipeline: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._pipeline = self._request = self._compiled = self._tokenizer = None

    @property
    def runtime(self) -> str:
        """OpenVINO's version, and the device: it is the CPU for artifacts of any device."""
        return self._runtime

    @property
    def slow(self) -> bool:
        """Never: the CPU is what the plugin is made for."""
        return False

    def tokenize(self, text: str) -> list[int]:
        """The runtime's tokens of `text`, special tokens parsed, none added."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        return [int(token) for token in np.array(encoded.input_ids.data)[0]]

    @property
    def chat_template(self) -> str | None:
        """The template that openvino_genai found with the tokenizer."""
        return self._tokenizer.chat_template or None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt for `messages` by openvino_genai's own template engine.

        Raises ArtifactError for a template that it cannot render.
        """
        turns = [dict(message) for message in messages]
        try:
            return str(self._tokenizer.apply_chat_template(turns, add_generation_prompt=True))
        except Exception as error:  # openvino_genai raises whatever it meets
            raise ArtifactError(f"openvino_genai does not render it: {error}") from error

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty KV cache; of its `last`
        tokens only, where that is given.
        """
        if self._is_long(len(tokens)):
            # In pieces, the first ones would be turned by the other factors of LongRoPE.
            return self._at_once(tokens, last)
        self._request.reset_state()
        pieces = [
            self.step(tokens[None, first : first + PIECE], first)[0]
            for first in range(0, len(tokens), PIECE)
        ]
        logits: Floats = np.concatenate(pieces)[-(last or len(tokens)) :]
        return logits

    def _is_long(self, length: int) -> bool:
        long = read_architecture(read_config(self._path)).rope.long
        return long is not None and length > long.original_positions

    def _at_once(self, tokens: npt.NDArray[np.int32], last: int | None) -> Floats:
        if last is None:
            self._request.reset_state()
            whole: Floats = self.step(tokens[None], 0)[0]
            return whole
        with kept_signal_stack():
            request = self._compile(last).create_infer_request()
        logits: Floats = np.array(request.infer(_inputs(tokens[None], 0))["logits"][0], np.float32)
        return logits

    def _compile(self, last: int | None = None) -> Any:  # noqa: ANN401 (an openvino.CompiledModel)
        """The model; with `last`, its head gets the last tokens only, as in openvino_genai."""
        import openvino
        from openvino import opset15 as ops

        core = openvino.Core()
        model = core.read_model(self._path / MODEL)
        if last is not None:
            product = model.output("logits").get_node().input_value(0).get_node()
            while product.get_type_name() == "Convert":
                product = product.input_value(0).get_node()
            edges = [ops.constant([value]) for value in (-last, 2**31 - 1, 1, 1)]
            product.input(0).replace_source_output(
                ops.slice(product.input_value(0), *edges).output(0)
            )
            model.validate_nodes_and_infer_types()
        settings = {"INFERENCE_PRECISION_HINT": "f32", **properties(self._path), **threads()}
        return core.compile_model(model, "CPU", settings)

    def step(
        self,
        tokens: npt.NDArray[np.int32],
        past: int,
        beams: npt.NDArray[np.int32] | None = None,
    ) -> Floats:
        """Logits (batch, tokens, vocabulary) after `past` cached tokens; `beams` reorders these."""
        given = _inputs(tokens, past)
        if beams is not None:
            given["beam_idx"] = beams
        logits: Floats = np.array(self._request.infer(given)["logits"], np.float32)
        return logits

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily by openvino_genai's pipeline, up to its stop or `limit`."""
        import openvino
        import openvino_genai

        if self._pipeline is None:
            given = {**properties(self._path), **threads()}
            with kept_signal_stack():
                self._pipeline = openvino_genai.LLMPipeline(str(self._path), "CPU", **given)
        settings = self._pipeline.get_generation_config()
        settings.max_new_tokens = limit
        settings.do_sample = False
        settings.apply_chat_template = False
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(prompt[None].astype(np.int64)),
            openvino.Tensor(np.ones((1, len(prompt)), np.int64)),
        )
        times: list[float] = []

        def seen(_: object) -> Any:  # noqa: ANN401
            times.append(time.perf_counter())
            return openvino_genai.StreamingStatus.RUNNING

        result = self._pipeline.generate(inputs, settings, seen)
        tokens = [int(token) for token in result.tokens[0]]
        stopped = bool(tokens) and tokens[-1] in settings.stop_token_ids
        if stopped:
            tokens.pop()
        metrics = result.perf_metrics
        seconds = (metrics.get_generate_duration().mean - metrics.get_ttft().mean) / 1000
        text = str(self._tokenizer.decode(tokens)) if tokens else ""
        return Generation(tuple(tokens), text, stopped, max(seconds, 0.0))

    def stops_at(self, token: int) -> bool:
        """Whether openvino_genai ends a generation at `token`."""
        import openvino_genai

        path = self._path / "generation_config.json"
        settings = openvino_genai.GenerationConfig(str(path))
        stops = set(settings.stop_token_ids) | {settings.eos_token_id}
        return token in stops
