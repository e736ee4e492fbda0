"""Does the runtime attend to the model's sliding window, or to all earlier tokens?

One sequence longer than the window is run in the runtime, and its last positions are compared with
the reference forward over the same decoded weights, once with the window and once without.
Quantization is in all three, so even a small effect of the window shows. A runtime that knows no
window is right up to that length, which is a limitation and no fault where the artifact's own
metadata, as the runtime reads them, say so.
"""

from dataclasses import dataclass, replace

import numpy as np

from phiquant.evaluation.boundary import LAST, NEARER, obstacle
from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.evaluation.figures import mean_divergence
from phiquant.evaluation.reconfigured import Reconfigured
from phiquant.evaluation.thresholds import Limit
from phiquant.phi.architecture import Architecture
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Tokens
from phiquant.quantization.grid import Floats
from phiquant.targets.target import Artifact, Runner

NAME = "sliding window"
BEYOND = 4
"""The sequence is longer than the window by this part of it, and the positions compared."""


@dataclass(frozen=True, slots=True)
class _Distances:
    """KL divergences of the runtime in nats a token, over the last positions of a sequence."""

    length: int
    windowed: float
    """To the reference with the window."""
    full: float
    """To the reference that attends to all earlier tokens."""

    @property
    def finding(self) -> str:
        return (
            f"at {self.length} tokens the runtime is {self.windowed:.2g} nats from the model with "
            f"its window and {self.full:.2g} from attention to all tokens"
        )


def check_window(
    runner: Runner, artifact: Artifact, expected: Architecture, tokens: Tokens, limit: Limit
) -> Check | None:
    """Run one long sequence; None where `expected`, the checkpoint's architecture, has no window
    that is shorter than its context. `tokens` is any text; it is repeated to the length needed.
    """
    window = expected.sliding_window
    if window is None or window >= expected.max_positions:
        return None
    length = min(window + window // BEYOND + LAST, expected.max_positions)
    hindered = obstacle(runner, expected, length)
    if hindered:
        return Check(NAME, Outcome.UNOBSERVED, hindered)
    sequence = np.resize(tokens, length).astype(np.int32)
    distances = _distances(runner, artifact, window, sequence)
    if distances.windowed <= limit.runtime_kl and distances.windowed <= NEARER * distances.full:
        return passed(NAME, distances.finding)
    if artifact.architecture.sliding_window is None and distances.full <= limit.runtime_kl:
        return Check(
            NAME,
            Outcome.LIMITED,
            f"right for sequences up to {window} tokens; beyond, the runtime attends to all "
            f"earlier tokens: {distances.finding}",
        )
    return failed(
        NAME, f"the runtime does not attend to the last {window} tokens: {distances.finding}"
    )


def _distances(runner: Runner, artifact: Artifact, window: int, sequence: Tokens) -> _Distances:
    last = min(LAST, len(sequence) - 1)
    logits = runner.logits(sequence, last=last)
    own = artifact.architecture
    windowed, full = (
        mean_divergence(
            _last_logits(artifact, replace(own, sliding_window=used), sequence, last),
            logits,
            sequence[-last:],
        )
        for used in (window, None)
    )
    return _Distances(len(sequence), windowed, full)


def _last_logits(
    artifact: Artifact, architecture: Architecture, sequence: Tokens, last: int
) -> Floats:
    forward = Reference(Reconfigured(artifact, architecture))
    (hidden,) = forward.hidden_states([sequence])
    return forward.head(hidden[-last:])
