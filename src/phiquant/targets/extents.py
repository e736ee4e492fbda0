"""Which bytes of a file have been written, as far as they lie without a hole from its start."""

from dataclasses import dataclass, field

PADDING = 4096
"""Holes shorter than this count as alignment, which is zero and never written. One may turn out
to be the end of an array whose last rows are on their way."""


@dataclass(slots=True)
class Extents:
    """Written ranges of bytes. Bands of several arrays come in turn, so a few ranges grow."""

    solid: int = 0
    """Everything before this byte is written, but for short holes."""
    _last_by_first: dict[int, int] = field(default_factory=dict)
    """Where the ranges beyond `solid` begin and end (exclusive)."""
    _first_by_last: dict[int, int] = field(default_factory=dict)

    def add(self, first: int, last: int) -> None:
        """Note that the bytes from `first` to `last` (exclusive) are written."""
        first = self._first_by_last.pop(first, first)
        self._last_by_first[first] = last
        self._first_by_last[last] = first
        while self._last_by_first:
            first = min(self._last_by_first)
            if first - self.solid >= PADDING:
                break
            last = self._last_by_first.pop(first)
            self._first_by_last.pop(last, None)
            self.solid = max(self.solid, last)
