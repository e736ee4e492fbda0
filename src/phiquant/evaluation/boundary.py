"""Does the runtime turn long sequences by LongRoPE's long factors, and short ones by the short?

One sequence of exactly the original length and one a token longer are run in the runtime, and
their last positions are compared with the reference forward over the same decoded weights, once
with the right factors and once with those of the other side. Quantization is in all three, so
even a small effect of the factors shows.

A runtime that knows one list of factors only is right on one side. That is a limitation and not
a fault where the artifact's own metadata say which side it serves.
"""

from dataclasses import dataclass, replace

import numpy as np

from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.evaluation.figures import mean_divergence
from phiquant.evaluation.reconfigured import Reconfigured
from phiquant.evaluation.structure import one_sided
from phiquant.evaluation.thresholds import Limit
from phiquant.phi.architecture import Architecture
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Tokens
from phiquant.quantization.grid import Floats
from phiquant.targets.target import Artifact, Runner

LAST = 32
"""Positions that are compared, at the end of each sequence."""

NEARER = 1.5
"""How much farther the right factors may be than the wrong ones: both are blurred alike by the
runtime's arithmetic, so that two equal distances differ by chance."""

SLOW_WORK = 5e11
"""Weights times tokens beyond which a slow runtime is not asked (some minutes)."""


@dataclass(frozen=True, slots=True)
class Side:
    """One sequence at the boundary: KL divergence in nats a token, over its last positions."""

    name: str
    length: int
    right: float
    """To the reference with the factors that belong to this length."""
    wrong: float
    """To the reference with the factors of the other side."""
    limit: float
    """What arithmetic explains."""

    @property
    def holds(self) -> bool:
        """Whether the runtime used the right factors: those that it is nearer to.

        Where both are about as near, the factors make no difference that matters here.
        """
        return self.right <= self.limit and self.right <= NEARER * self.wrong

    @property
    def finding(self) -> str:
        """The figures in words."""
        return (
            f"{self.length} tokens: {self.right:.2g} nats from the {self.name} factors and "
            f"{self.wrong:.2g} from the others"
        )


def check_boundary(
    runner: Runner, artifact: Artifact, expected: Architecture, tokens: Tokens, limit: Limit
) -> Check | None:
    """Run both sides; None where `expected`, the checkpoint's architecture, has no boundary.

    `tokens` is any text; it is repeated to the length needed.
    """
    long, own = expected.rope.long, artifact.architecture
    if long is None or long.original_positions >= expected.max_positions:
        return None
    hindered = obstacle(runner, expected, long.original_positions)
    if hindered:
        return Check("LongRoPE", Outcome.UNOBSERVED, hindered)
    sequence = np.resize(tokens, long.original_positions + 1).astype(np.int32)
    sides = _sides(runner, Networks.of(artifact, expected), sequence, limit)
    finding = "; ".join(side.finding for side in sides)
    wrong = [side.name for side in sides if not side.holds]
    if not wrong:
        return passed("LongRoPE", finding)
    declared = one_sided(own.rope.long, long) if own.rope.long is not None else None
    if declared is not None and wrong == [name for name in ("short", "long") if name != declared]:
        return Check(
            "LongRoPE",
            Outcome.LIMITED,
            f"right for the {declared} factors only, as the artifact's metadata say; {finding}",
        )
    return failed(
        "LongRoPE", f"the runtime does not use the {' and '.join(wrong)} factors; {finding}"
    )


def obstacle(runner: Runner, architecture: Architecture, length: int) -> str:
    """Why a sequence of `length` tokens is not asked of the runtime; empty where it is."""
    weights = sum(int(np.prod(weight.shape)) for weight in architecture.weights())
    if runner.slow and weights * length > SLOW_WORK:
        return f"{length} tokens of this model take too long in the runtime on this machine"
    return ""


@dataclass(frozen=True, slots=True)
class Networks:
    """The artifact's weights with the checkpoint's factors, and with the two lists swapped."""

    right: Reference
    wrong: Reference

    @classmethod
    def of(cls, artifact: Artifact, expected: Architecture) -> "Networks":
        """The networks for an artifact of a checkpoint with the architecture `expected`."""
        long = expected.rope.long
        assert long is not None
        # The mask is not what is asked about here: the artifact's own sliding window, if any.
        true = replace(expected, sliding_window=artifact.architecture.sliding_window)
        other = replace(long, short_factors=long.long_factors, long_factors=long.short_factors)
        swapped = replace(true, rope=replace(true.rope, long=other))
        return cls(
            Reference(Reconfigured(artifact, true)), Reference(Reconfigured(artifact, swapped))
        )


def _sides(runner: Runner, networks: Networks, sequence: Tokens, limit: Limit) -> tuple[Side, ...]:
    windows = [sequence[:-1], sequence]
    rights = _last_logits(networks.right, windows)
    wrongs = _last_logits(networks.wrong, windows)
    sides = []
    for at, name in enumerate(("short", "long")):
        logits, last = runner.logits(windows[at], last=LAST), windows[at][-LAST:]
        right = mean_divergence(rights[at], logits, last)
        wrong = mean_divergence(wrongs[at], logits, last)
        sides.append(Side(name, len(windows[at]), right, wrong, limit.runtime_kl))
    return tuple(sides)


def _last_logits(reference: Reference, windows: list[Tokens]) -> list[Floats]:
    return [reference.head(hidden[-LAST:]) for hidden in reference.hidden_states(windows)]
