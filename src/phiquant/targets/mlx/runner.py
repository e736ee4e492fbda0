"""`MlxRunner`: an artifact in unmodified mlx_lm, tokens in, logits out.

mlx_lm loads the directory as it would for anyone: no custom code, weights read on first use. It is
given nothing that `admission` does not know.
On a machine without a GPU that MLX knows, everything runs on its CPU backend, which is right and
slow. A long sequence goes through the KV cache in pieces, as mlx_lm's own prefill does.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError, MissingDependency
from phiquant.quantization.grid import Floats
from phiquant.targets.mlx.admission import TRUST, check_artifact
from phiquant.targets.target import Generation

PIECE = 512
"""Tokens per step of a long sequence: bounds the attention scores to heads x 512 x length."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep loading silent: transformers logs advice, mlx_lm prints warnings."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)


class MlxRunner:
    """An MLX artifact, loaded. Not thread-safe; close it to free its memory."""

    def __init__(self, path: Path) -> None:
        """Load `path`. Raises MissingDependency or, if mlx_lm refuses it, ArtifactError."""
        try:
            import mlx.core as mx
            import mlx_lm
            from mlx_lm.utils import load
        except ImportError as error:
            raise MissingDependency("mlx-lm[cpu]", "running an MLX artifact") from error
        if not path.is_dir():  # mlx_lm would take it for the name of a model to download
            raise ArtifactError(f"expected an MLX artifact's directory, found none at {path}")
        check_artifact(path)
        trust = {TRUST: False}  # None would have transformers ask whoever sits at the terminal
        try:
            with _quiet():
                model, tokenizer = load(str(path), tokenizer_config=dict(trust), lazy=True)[:2]
        except Exception as error:  # mlx_lm raises whatever it meets
            raise ArtifactError(
                f"mlx_lm {mlx_lm.__version__} does not load {path}: {error}"
            ) from error
        self._mx: Any = mx
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._runtime = f"mlx_lm {mlx_lm.__version__} (mlx {version('mlx')})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._model = None
        self._mx.clear_cache()

    @property
    def runtime(self) -> str:
        """mlx_lm's version and MLX's."""
        return self._runtime

    @property
    def slow(self) -> bool:
        """Whether MLX computes on the CPU here."""
        return bool(self._mx.default_device().type == self._mx.DeviceType.cpu)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of `text` by mlx_lm's tokenizer, special tokens parsed, none added."""
        return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    @property
    def chat_template(self) -> str | None:
        """The template that transformers found in the artifact's files."""
        template = self._tokenizer.chat_template
        return template.get("default") if isinstance(template, dict) else template

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt for `messages` by transformers' engine, which mlx_lm uses.

        Raises ArtifactError for a template that it cannot render.
        """
        turns = [dict(message) for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            )
        except Exception as error:  # a template raises whatever it likes
            raise ArtifactError(f"transformers does not render it: {error}") from error

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty KV cache, as float32; of
        its `last` tokens only, where that is given.
        """
        from mlx_lm.models.cache import make_prompt_cache

        mx = self._mx
        cache = make_prompt_cache(self._model)
        skipped = 0 if last is None else len(tokens) - last
        pieces = []
        for first in range(0, len(tokens), PIECE):
            piece = mx.array(np.asarray(tokens[first : first + PIECE], np.int32))[None]
            logits = self._model(piece, cache=cache)[0, max(skipped - first, 0) :]
            mx.eval(logits, [layer.state for layer in cache])
            if logits.shape[0]:
                pieces.append(np.array(logits.astype(mx.float32)))
        return np.concatenate(pieces)

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily by mlx_lm's own loop, up to its stop or `limit` tokens.

        The token that ends the sequence is not part of the result.
        """
        from mlx_lm.generate import stream_generate

        began = time.perf_counter()

        def prefilled(done: int, total: int) -> None:
            nonlocal began
            if done < total:  # the last prompt token is decoded with the first new one
                began = time.perf_counter()

        tokens, text, stopped = [], "", False
        for step in stream_generate(
            self._model,
            self._tokenizer,
            [int(token) for token in prompt],
            max_tokens=limit,
            prompt_progress_callback=prefilled,
        ):
            stopped = step.finish_reason == "stop"
            text += step.text
            if not stopped:
                tokens.append(int(step.token))
        return Generation(tuple(tokens), text, stopped, time.perf_counter() - began)

    def stops_at(self, token: int) -> bool:
        """Whether mlx_lm ends a generation at `token`."""
        return token in self._tokenizer.eos_token_ids
