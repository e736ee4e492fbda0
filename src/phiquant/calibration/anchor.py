"""A rounding that belongs to no target: the perturbation by which sensitivities are measured."""

from dataclasses import dataclass

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Part
from phiquant.phi.weights import Floats, WeightSource


@dataclass(frozen=True, slots=True)
class Anchor:
    """Rounding to 2^bits even levels from a group's least weight to its greatest.

    The range is widened to hold 0, and 0 is one of the levels, as in formats with zero points.
    Nothing is searched, and scales are not rounded.
    """

    bits: int
    group: int = 32

    def rounded(self, weights: Floats) -> Floats:
        """`weights` (rows, columns) on the levels; the last group of a row may be shorter."""
        rows, columns = weights.shape
        padded = np.pad(weights, ((0, 0), (0, -columns % self.group)), mode="edge")
        groups = padded.reshape(rows, -1, self.group)
        low = np.minimum(groups.min(axis=2, keepdims=True), 0)
        high = np.maximum(groups.max(axis=2, keepdims=True), 0)
        scale = (high - low) / np.float32((1 << self.bits) - 1)
        scale[scale == 0] = 1
        zero = np.rint(-low / scale)
        codes = np.clip(np.rint(groups / scale) + zero, 0, (1 << self.bits) - 1)
        levels: Floats = (codes - zero) * scale
        return levels.reshape(rows, -1)[:, :columns]


class Perturbed:
    """The weights of `source` with one matrix rounded by an anchor, as it is read."""

    def __init__(self, source: WeightSource, part: Part, anchor: Anchor) -> None:
        self._source = source
        self._part = part
        self._anchor = anchor

    @property
    def architecture(self) -> Architecture:
        """The dimensions, unchanged."""
        return self._source.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a weight."""
        part, rows = self._part, self._source.weight(name, first, last)
        here = slice(max(part.first - first, 0), max(part.last - first, 0))
        if name != part.weight.name or not len(rows[here]):
            return rows
        rows = rows.copy()
        rows[here] = self._anchor.rounded(rows[here])
        return rows
