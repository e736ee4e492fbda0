"""`Check`: one question put to an artifact, and its answer in a sentence."""

from dataclasses import asdict, dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a check ended. Only `FAILED` makes a verification fail."""

    PASSED = "passed"
    FAILED = "failed"
    UNOBSERVED = "not observed"
    """The question applies, but could not be answered here; the sentence says why."""
    LIMITED = "limited"
    """Right as far as the runtime or the artifact goes; the sentence says how far that is."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check's name, how it ended, and what was found."""

    name: str
    outcome: Outcome
    finding: str
    """One or two sentences: what was looked at, what was expected where it differs."""

    @property
    def failed(self) -> bool:
        """Whether this check alone makes the verification fail."""
        return self.outcome is Outcome.FAILED

    def as_json(self) -> dict[str, str]:
        """The check as it is recorded."""
        return asdict(self) | {"outcome": self.outcome.value}


def passed(name: str, finding: str) -> Check:
    """A check that found what it should."""
    return Check(name, Outcome.PASSED, finding)


def failed(name: str, finding: str) -> Check:
    """A check that found a fault."""
    return Check(name, Outcome.FAILED, finding)
