"""`Grid`: the set of values that a storage format can hold.

A grid turns rows of float32 weights into the arrays that a runtime reads, and back into exactly
the floats that the runtime will see. Targets bring grids; everything else (planning, streaming,
measuring) knows them only through this protocol.

Most grids are affine: each group of neighbouring weights in a row shares a scale and an offset,
and a weight is `scale * code + offset` with an integer code. Those also speak `AffineGrid`, in
which rounding methods are written once for every format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int16]
Parts = Mapping[str, npt.NDArray[np.generic]]
"""The stored arrays of some rows by part name; the first axis of each is the row."""


@dataclass(frozen=True, slots=True)
class PartLayout:
    """One stored array of a tensor: element type and shape."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that the array takes."""
        size = self.dtype.itemsize
        for extent in self.shape:
            size *= extent
        return size


@dataclass(frozen=True, slots=True)
class Levels:
    """Where the levels of every group lie, for rows of weights.

    `scale` and `offset` have shape (rows, groups); they are the numbers that the runtime
    recovers from `stored`, so a weight decodes to `scale * code + offset`. `stored` holds the
    format's own fields (FP16 super-scales, 6-bit sub-scales, zero points, ...), from which the
    packer builds the bytes; the second axis of each is the group or the block.
    """

    scale: Floats
    offset: Floats
    stored: Mapping[str, npt.NDArray[np.generic]]


class Grid(Protocol):
    """A storage format for one tensor."""

    @property
    def name(self) -> str:
        """The runtime's own name for the format ("Q4_K", "affine 4-bit g64", "F16")."""

    @property
    def block(self) -> int:
        """Weights that are stored as one unit; row lengths must be a multiple of it."""

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """The stored arrays of a tensor of `shape`, by part name. Exact, before any rounding."""

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns) to the grid.

        `importance` (columns,) weighs the squared error of each input channel; None means all
        alike. The rounding is searched: per group, the stored parameters with the least
        (weighted) squared error found. Raises ValueError on a non-finite or unrepresentable
        weight.
        """

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The floats (rows, columns) that the runtime sees, bit for bit."""


class AffineGrid(Grid, Protocol):
    """A grid whose weights decode to `scale * code + offset` per group."""

    @property
    def group(self) -> int:
        """Weights that share one scale and offset (at most `block`)."""

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """Choose the levels of every group of `weights` (rows, columns) as they will be stored."""

    def pack(self, codes: Codes, levels: Levels) -> dict[str, npt.NDArray[np.generic]]:
        """The stored arrays for `codes` (rows, columns) on `levels`."""

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """The factor of each float parameter of a block in each of its weights.

        For `codes` (rows, block) of one block: an array of that shape for each parameter. With the
        values p of `parameters`, the weights are the sum of p[:, None] * regressor.
        """

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """The float parameters of one block as stored, (rows,) each."""

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """The levels of one block with other float parameters, rounded as they are stored."""


def grid_over(grid: Grid, columns: int) -> Grid:
    """The grid for rows of `columns` weights, which decide the group where it is a whole row."""
    over = getattr(grid, "over", None)
    return cast(Grid, over(columns)) if over is not None else grid


def stored_bytes(grid: Grid, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor of `shape` takes on `grid`."""
    return sum(part.nbytes for part in grid.layout(shape).values())


def fitting_group(columns: int, most: int, groups: Sequence[int]) -> int | None:
    """The largest of `groups` up to `most` that divides rows of `columns` weights; None if none."""
    fitting = (group for group in groups if group <= most and columns % group == 0)
    return max(fitting, default=None)
