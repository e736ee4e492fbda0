"""`ReferenceFigures`: the FP32 reference's figures over a text, computed once for many artifacts.

Kept are not the logits (800 kB a token with Phi-4-mini's vocabulary) but what goes into the
head (12 kB a token). The logits of one window are made from them whenever they are asked for,
for the price of one matrix product, and nothing needs to be spilled to the disk. Where the
vocabulary is small and artifacts are many, `with_logits` keeps them all the same.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from phiquant.errors import RequestError
from phiquant.evaluation.reconfigured import Reconfigured
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.text import EvaluationSample, cut, shipped_text
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.opening import open_model
from phiquant.phi.reference import Reference
from phiquant.phi.source import locate
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.weights import Tokens
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.grid import Floats

BATCH_TOKENS = 2048
"""Tokens that go through a layer together: each weight is read once for all of them."""


@dataclass(frozen=True, slots=True)
class ReferenceFigures:
    """The checkpoint, its tokenizer, the windows of the text, and the head's inputs for each."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    sample: EvaluationSample
    windows: tuple[Tokens, ...]
    hidden: tuple[Floats, ...]
    forward: Reference
    kept: tuple[Floats, ...] = ()
    """The logits of every window, where they are kept."""

    @classmethod
    def measure(
        cls,
        checkpoint: Checkpoint | str | os.PathLike[str],
        settings: Settings | None = None,
        on_progress: OnProgress = ignore,
        *,
        adapter: str | os.PathLike[str] | None = None,
    ) -> "ReferenceFigures":
        """Run the reference over the text of `settings`; with `adapter` over a checkpoint that is
        named.

        Raises RequestError for an adapter over what is open, and InputError where the checkpoint,
        its tokenizer or the text will not do.
        """
        settings = settings or Settings()
        if adapter is not None and isinstance(checkpoint, Checkpoint):
            raise RequestError("`adapter` goes over a checkpoint that is named; this one is open")
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = open_model(locate(checkpoint), adapter)
        tokenizer = checkpoint.tokenizer
        text = settings.text or shipped_text()
        windows = cut(tokenizer.encode(text.content), settings.window, settings.windows)
        sample = EvaluationSample(
            text=text.name,
            sha256=text.sha256,
            window=len(windows[0]),
            windows=len(windows),
            positions=sum(len(window) - 1 for window in windows),
        )
        forward = Reference(checkpoint)
        hidden = tuple(hidden_states(forward, windows, on_progress))
        return cls(checkpoint, tokenizer, sample, windows, hidden, forward)

    def logits(self, window: int) -> Floats:
        """The reference's logits (tokens, vocabulary) of a window."""
        return self.kept[window] if self.kept else self.forward.head(self.hidden[window])

    def with_logits(self) -> "ReferenceFigures":
        """The same with the logits of every window kept: four bytes for each token of the text and
        each of the vocabulary.
        """
        return replace(self, kept=tuple(map(self.forward.head, self.hidden)))

    def first(self, windows: int) -> "ReferenceFigures":
        """The same over the first `windows` of the windows: what they hold is not computed anew."""
        first = self.windows[:windows]
        positions = sum(len(window) - 1 for window in first)
        return replace(
            self,
            sample=replace(self.sample, windows=len(first), positions=positions),
            windows=first,
            hidden=self.hidden[:windows],
            kept=self.kept[:windows],
        )

    def with_long_factors(self, on_progress: OnProgress = ignore) -> "ReferenceFigures":
        """The figures with LongRoPE's long factors at every length, for artifacts that serve long
        sequences only: windows then compare as parts of long sequences would.
        """
        architecture = self.checkpoint.architecture
        long = architecture.rope.long
        assert long is not None
        rope = replace(architecture.rope, long=replace(long, short_factors=long.long_factors))
        forward = Reference(Reconfigured(self.checkpoint, replace(architecture, rope=rope)))
        hidden = tuple(hidden_states(forward, self.windows, on_progress))
        return replace(self, hidden=hidden, forward=forward, kept=())


def hidden_states(
    forward: Reference,
    windows: Sequence[Tokens],
    on_progress: OnProgress = ignore,
    stage: str = "reference",
) -> Iterator[Floats]:
    """The head's inputs for each window, in batches of `BATCH_TOKENS`."""
    size = max(1, BATCH_TOKENS // len(windows[0]))
    for first in range(0, len(windows), size):
        yield from forward.hidden_states(windows[first : first + size])
        done = min(first + size, len(windows))
        on_progress(Progress(stage, done, len(windows), "windows"))
