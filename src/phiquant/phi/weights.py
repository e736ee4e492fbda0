"""`WeightSource`: named float32 weights, wherever they come from.

A checkpoint is one, and so is every artifact opened for reading; the reference forward and
everything that measures weights work on either, which is what makes their figures comparable.
"""

from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

from phiquant.phi.architecture import Architecture

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]
"""Token ids."""

BAND_WEIGHTS = 1 << 24
"""Weights that are held at a time: 64 MiB as float32."""


class WeightSource(Protocol):
    """Weights under the names that `Architecture.weights` lists."""

    @property
    def architecture(self) -> Architecture:
        """The dimensions that the weights belong to."""

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows `first` to `last` (exclusive; None for all) of a weight, in float32.

        Shape (rows, in), or (rows,) for the gains of a norm. The caller does not write to it.
        """


class Resident:
    """A source whose weights are read once and kept; for models that fit in memory."""

    def __init__(self, source: WeightSource) -> None:
        self._source = source
        self._kept: dict[str, Floats] = {}
        self._reading = Lock()

    @property
    def architecture(self) -> Architecture:
        """The dimensions that the weights belong to."""
        return self._source.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """A view of the kept weight's rows."""
        with self._reading:
            if name not in self._kept:
                self._kept[name] = self._source.weight(name)
        return self._kept[name][first:last]


def rows_from(
    counts: Sequence[int], first: int, last: int | None
) -> Iterator[tuple[int, int, int]]:
    """Where rows `first` to `last` lie in matrices of so many rows, one above the other.

    Each matrix that holds some: its number, and the first and the last (exclusive) of them in it.
    """
    first, last, _ = slice(first, last).indices(sum(counts))
    start = 0
    for number, count in enumerate(counts):
        low, high = max(first - start, 0), min(last - start, count)
        if low < high:
            yield number, low, high
        start += count


def row_bands(rows: int, columns: int, most: int | None = None) -> Iterator[tuple[int, int]]:
    """Row ranges of a (rows, columns) weight with at most `most` (BAND_WEIGHTS) weights each."""
    step = max(1, (most or BAND_WEIGHTS) // columns)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)
