"""How far a long job has come, as values that the caller may render or ignore."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of a stage; the unit is bytes unless the stage says otherwise."""

    stage: str
    done: int
    total: int
    unit: str = "B"
    seconds: float | None = None
    """How long the stage is expected to take from here, where that is known before it starts."""


OnProgress = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The listener for callers who do not want to know."""
