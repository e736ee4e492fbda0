"""`CalibrationText`: which text statistics are gathered over, and how much of it."""

import os
from dataclasses import dataclass
from pathlib import Path

from phiquant.errors import RequestError
from phiquant.host.kinds import PLACE, optional
from phiquant.host.shown import shown

MOST = 10**9
"""Sequences, and tokens in each: more than any text has."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """What to gather statistics over: a file, or None for the text that is shipped.

    At most `sequences` sequences of `length` tokens. Raises RequestError for less than one
    sequence of two tokens.
    """

    path: str | os.PathLike[str] | None = None
    sequences: int = 128
    length: int = 512

    def __post_init__(self) -> None:
        optional(PLACE).check(path=self.path)
        for name, value, least in (("sequences", self.sequences, 1), ("length", self.length, 2)):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not least <= value <= MOST:
                raise RequestError(
                    "calibration needs at least one sequence of at least 2 tokens: expected "
                    f"`{name}` to be {least} to {MOST}, found {shown(value)}"
                )

    @property
    def file(self) -> Path | None:
        """The file as a path, None for the text that is shipped."""
        return None if self.path is None else Path(self.path)
