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

import numpy as np
from numba import njit

from phiquant.quantization.affine import decode_codes
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Levels

STEP = 128
"""Columns that are improved between two products with the moment."""


def damped(moment: Floats, damping: float) -> Floats:
    """`moment` (n, n) with `damping` times its mean diagonal added, as the feedback sees it."""
    found = moment.copy()
    found[np.diag_indices_from(found)] += damping * float(np.diagonal(moment).mean()) + 1e-30
    return found


def errors_of(weights: Floats, codes: Codes, levels: Levels) -> Floats:
    """w - v, (rows, n)."""
    errors: Floats = weights - decode_codes(codes, levels, FLOAT_TYPES["F32"])
    return errors


def improve_codes(
    codes: Codes, errors: Floats, levels: Levels, moment: Floats, grid: AffineGrid
) -> None:
    """One cycle of coordinate descent over all columns; `codes` and `errors` change in place."""
    columns = codes.shape[1]
    low, high = grid.code_range
    for first in range(0, columns, STEP):
        last = min(first + STEP, columns)
        slopes = errors @ moment[:, first:last]
        groups = np.arange(first, last) // grid.group
        descent_kernel(
            codes[:, first:last],
            errors[:, first:last],
            slopes,
            np.ascontiguousarray(moment[first:last, first:last]),
            (levels.scale, levels.offset, groups),
            (np.float32(low), np.float32(high)),
        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz"})
def descent_kernel(
    codes: Codes,
    errors: Floats,
    slopes: Floats,
    moment: Floats,
    levels: tuple[Floats, Floats, Codes],
    ends: tuple[np.float32, np.float32],
) -> None:
    """Coordinate descent within a step of columns (rows, n); `slopes` are e H there."""
    scales, offsets, groups = levels
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
            code = min(max(code, ends[0]), ends[1])
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
    block, per_block = grid.block, grid.block // grid.group
    for index, first in enumerate(range(0, codes.shape[1], block)):
        here = slice(first, first + block)
        old = _piece(levels, index, per_block, codes.shape[1] // block)
        basis = grid.basis(codes[:, here], old)
        slopes = errors @ moment[:, here]
        new, moves = _moved(grid, old, (basis, slopes), moment[here, here])
        errors[:, here] -= sum(
            move[:, None] * part for move, part in zip(moves, basis, strict=True)
        )
        pieces.append(new)
    from phiquant.quantization.levels import concatenate

    return concatenate(pieces)


def _piece(levels: Levels, index: int, groups: int, blocks: int) -> Levels:
    """The levels of one block."""

    def cut(array):
        width = array.shape[1] // blocks
        return array[:, index * width : (index + 1) * width]

    stored = {name: cut(part) for name, part in levels.stored.items()}
    return Levels(cut(levels.scale), cut(levels.offset), stored)


def _moved(grid, old, linear, moment):
    """New levels of a block, and how far each parameter moved in each row."""
    basis, slopes = linear
    turned = [part @ moment for part in basis]
    wish = [(part * slopes).sum(1) for part in basis]
    if len(basis) == 1:
        mass = np.maximum((basis[0] * turned[0]).sum(1), 1e-30)
        steps = [wish[0] / mass]
        masses = [[mass]]
    else:
        masses = [[(a * t).sum(1) for t in turned] for a in basis]
        (m00, m01), (_, m11) = masses
        det = m00 * m11 - m01 * m01
        ok = det > 1e-6 * m00 * m11
        det = np.where(ok, det, 1)
        steps = [
            np.where(ok, (wish[0] * m11 - wish[1] * m01) / det, wish[0] / np.maximum(m00, 1e-30)),
            np.where(ok, (wish[1] * m00 - wish[0] * m01) / det, 0),
        ]
    before = grid.parameters(old)
    new = grid.with_parameters(old, [(b + s).astype(np.float32) for b, s in zip(before, steps)])
    moves = [a - b for a, b in zip(grid.parameters(new), before)]
    change = -2 * sum(m * w for m, w in zip(moves, wish))
    for i, a in enumerate(moves):
        for j, b in enumerate(moves):
            change = change + a * b * masses[i][j]
    better = change < 0
    moves = [np.where(better, m, 0).astype(np.float32) for m in moves]
    kept = grid.with_parameters(old, [np.where(better, a, b) for a, b in zip(grid.parameters(new), before)])
    return kept, moves
