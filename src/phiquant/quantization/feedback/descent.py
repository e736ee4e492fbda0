"""Codes and parameters improved in turn, after a rounding with feedback.

The cost of a row is e H eᵀ with e = w - v. Feedback looks ahead only; once all columns have
codes, each may be chosen again given all others, and so may the stored parameters:

- code j moves to the level nearest to v_j + (e H)_j / H_jj, the minimum along that coordinate
  (cyclic coordinate descent: QuantEase, https://arxiv.org/abs/2309.01885, eq. 7);
- the parameters θ of a block, in which its weights are linear (v = Σ_p θ_p B_p with codes held),
  move to the least-squares solution (B H Bᵀ) Δ = B (e H), are rounded as the format stores them,
  and are kept where the cost is then lower.

Neither step can raise the cost of a row, so it is safe to stop at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.affine import decode_codes
from phiquant.quantization.feedback.two_sided import two_sided_descent_kernel
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Levels
from phiquant.quantization.levels import block_of, concatenate

TINY = np.float32(1e-30)

STEP = 128
"""Columns that are improved between two products with the moment."""


def errors_of(weights: Floats, codes: Codes, levels: Levels) -> Floats:
    """The errors w - v of `codes` on `levels`, (rows, n)."""
    errors: Floats = weights - decode_codes(codes, levels, FLOAT_TYPES["F32"])
    return errors


def improve_codes(
    codes: Codes,
    errors: Floats,
    levels: Levels,
    moments: tuple[Floats, Floats | None],
    grid: AffineGrid,
) -> None:
    """One cycle of coordinate descent over all columns; `codes` and `errors` change in place.

    `moments` are H (n, n) and, where rows are not independent, G (rows, rows): see `two_sided`.
    """
    moment, across = moments
    columns = codes.shape[1]
    low, high = grid.code_range
    for first in range(0, columns, STEP):
        last = min(first + STEP, columns)
        slopes = errors @ moment[:, first:last]
        groups = np.arange(first, last) // grid.group
        state = codes[:, first:last], errors[:, first:last], slopes
        within = np.ascontiguousarray(moment[first:last, first:last])
        known = levels.scale, levels.offset, groups, np.float32(low), np.float32(high)
        if across is None:
            descent_kernel(*state, within, known)
        else:
            two_sided_descent_kernel(*state, (within, across), known)


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def descent_kernel(
    codes: Codes,
    errors: Floats,
    slopes: Floats,
    moment: Floats,
    levels: tuple[Floats, Floats, npt.NDArray[np.intp], np.float32, np.float32],
) -> None:
    """Coordinate descent within a step of columns (rows, n); `slopes` are e H of these columns.

    `levels` are scale and offset (rows, groups), each column's group, the least and the greatest
    code.
    """
    scales, offsets, groups, low, high = levels
    for row in range(codes.shape[0]):
        slope = slopes[row]
        for j in range(codes.shape[1]):
            scale = scales[row, groups[j]]
            if scale == 0:
                continue
            old = np.float32(codes[row, j])
            value = scale * old + offsets[row, groups[j]]
            wanted = value + slope[j] / moment[j, j]
            code = np.rint((wanted - offsets[row, groups[j]]) / scale)
            code = min(max(code, low), high)
            if code != old:
                change = scale * (old - code)
                codes[row, j] = np.int16(code)
                errors[row, j] += change
                for k in range(codes.shape[1]):
                    slope[k] += change * moment[j, k]


def improve_parameters(
    codes: Codes, errors: Floats, levels: Levels, moment: Floats, grid: AffineGrid
) -> Levels:
    """The levels with every block's stored parameters fitted anew, one block after the other.

    `errors` changes in place.
    """
    pieces = []
    blocks = codes.shape[1] // grid.block
    for index in range(blocks):
        here = slice(index * grid.block, (index + 1) * grid.block)
        old = block_of(levels, index, blocks)
        regressors = grid.regressors(codes[:, here], old)
        slopes = errors @ moment[:, here]
        new, moves = _fitted(grid, old, _Linear.of(regressors, slopes, moment[here, here]))
        for move, part in zip(moves, regressors, strict=True):
            errors[:, here] -= move[:, None] * part
        pieces.append(new)
    return concatenate(pieces)


@dataclass(frozen=True, slots=True)
class _Linear:
    """How the cost of a block depends on moves Δ of its parameters, row by row.

    It changes by Σ_pq Δ_p masses[p][q] Δ_q - 2 Σ_p Δ_p wishes[p].
    """

    wishes: list[Floats]
    masses: list[list[Floats]]

    @classmethod
    def of(cls, regressors: Sequence[Floats], slopes: Floats, moment: Floats) -> "_Linear":
        turned = [part @ moment for part in regressors]
        wishes = [np.einsum("rj,rj->r", part, slopes) for part in regressors]
        masses = [[np.einsum("rj,rj->r", part, other) for other in turned] for part in regressors]
        return cls(wishes, masses)

    def minimum(self) -> list[Floats]:
        """The moves of least cost; where both parameters have one effect, only the first moves."""
        first: Floats = np.divide(self.wishes[0], np.maximum(self.masses[0][0], TINY))
        if len(self.wishes) == 1:
            return [first]
        (m00, m01), (_, m11) = self.masses
        spread = m00 * m11 - m01 * m01
        apart = spread > 1e-6 * m00 * m11
        spread = np.where(apart, spread, 1)
        both = (self.wishes[0] * m11 - self.wishes[1] * m01) / spread
        other = (self.wishes[1] * m00 - self.wishes[0] * m01) / spread
        moves = np.where(apart, both, first), np.where(apart, other, 0)
        return [np.asarray(move, np.float32) for move in moves]

    def change(self, moves: Sequence[Floats]) -> Floats:
        """By how much `moves` change the cost of each row."""
        total = np.zeros_like(moves[0])
        for move, wish, masses in zip(moves, self.wishes, self.masses, strict=True):
            total -= 2 * move * wish
            for other, mass in zip(moves, masses, strict=True):
                total += move * mass * other
        return total


def _fitted(grid: AffineGrid, old: Levels, linear: _Linear) -> tuple[Levels, list[Floats]]:
    """New levels of a block, and how far each parameter moved in each row."""
    before = grid.parameters(old)
    asked = [was + move for was, move in zip(before, linear.minimum(), strict=True)]
    stored = grid.parameters(grid.with_parameters(old, asked))
    moves = [becomes - was for becomes, was in zip(stored, before, strict=True)]
    better = linear.change(moves) < 0
    moves = [np.where(better, move, np.float32(0)) for move in moves]
    kept = [np.where(better, becomes, was) for becomes, was in zip(stored, before, strict=True)]
    return grid.with_parameters(old, kept), moves
