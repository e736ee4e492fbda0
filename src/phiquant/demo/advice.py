"""Which artifact of the demonstration to take, by what was measured.

Fewer bits are worth having as long as nobody notices what they lose. So the precision is the one of
the fewest bits at which an artifact loses no more than `UNNOTICED`, and of the artifacts that do so
the fastest on this machine is taken. Where memory is shorter than that, the artifact of the fewest
bits is taken that loses least.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from phiquant.demo.demonstration import Row
from phiquant.planning.precision import PRECISIONS
from phiquant.recommendation.choice import UNNOTICED


@dataclass(frozen=True, slots=True)
class Measured:
    """An artifact that passed its verification."""

    row: Row
    loss: float
    """Mean KL divergence, nats a token."""
    speed: float
    """Tokens a second, here."""
    answer: str
    """To the question that every artifact is asked."""

    @property
    def bits(self) -> int:
        """The place of its precision among all, the fewest bits first."""
        return PRECISIONS.index(self.row.precision)

    @property
    def unnoticed(self) -> bool:
        """Whether nobody would notice its loss."""
        return self.loss <= UNNOTICED


@dataclass(frozen=True, slots=True)
class Advice:
    """What to take of several artifacts."""

    best: Measured
    alike: tuple[Measured, ...]
    """Those of the same precision, for the other runtimes."""
    small: Measured | None
    """What to take where memory is short; None where nothing has fewer bits than `best`."""


def advise(rows: Iterable[Row]) -> Advice | None:
    """What to take of `rows`; None where no artifact was run and passed."""
    passed = [measured for row in rows if (measured := _measured(row)) is not None]
    if not passed:
        return None
    best = _best(passed)
    alike = (measured for measured in passed if measured.bits == best.bits and measured is not best)
    fewest = min(measured.bits for measured in passed)
    small = min(
        (measured for measured in passed if measured.bits == fewest),
        key=lambda measured: measured.loss,
    )
    return Advice(best, tuple(alike), small if fewest < best.bits else None)


def _best(passed: list[Measured]) -> Measured:
    unnoticed = [measured for measured in passed if measured.unnoticed]
    if not unnoticed:
        return min(passed, key=lambda measured: measured.loss)
    fewest = min(measured.bits for measured in unnoticed)
    return max(
        (measured for measured in unnoticed if measured.bits == fewest),
        key=lambda measured: measured.speed,
    )


def _measured(row: Row) -> Measured | None:
    verification = row.verification
    if verification is None or not verification.passed:
        return None
    figures, answer = verification.figures, verification.answer
    if figures is None or answer is None:
        return None
    return Measured(row, figures.mean.value, answer.tokens_per_second, answer.text)
