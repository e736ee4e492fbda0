"""GPTQ: rounding column by column, each error made good by the columns that follow.

For a linear layer with inputs x of second moment H = E[x xᵀ], rounding a row w of its weight to
v costs (w - v) H (w - v)ᵀ. With H = U D Uᵀ, U upper triangular of unit diagonal, and e = w - v,

    e H eᵀ = Σ_j D_j (e_j + Σ_{k<j} e_k U_kj)²

so column j is rounded to the level nearest to w_j + Σ_{k<j} e_k U_kj, and the error that is left
in column j is passed on. This is GPTQ (https://arxiv.org/abs/2210.17323) in the form of LDLQ
(https://arxiv.org/abs/2307.13304, section 3 and theorem 6: the two are the same), which needs
one Cholesky factor and no inverse.

Group parameters are fitted when the first column of a grid's block is reached, to the weights as
the feedback has moved them and with D as importance: D_j is what an error in column j costs when
the columns behind it do their best. Then multiples of them are tried (`multiples`). Blocks are
taken in the order of their mean second moment, and so are the columns of a block: what matters
most is rounded first, while there is most left to make good for it, and every group stays whole
as the format stores it.
Left out: GPTQ's lazy updates of the columns to come; here a column gathers what is due to it
when its turn comes, which is the same sum, as one matrix product a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.host.threads import for_each
from phiquant.quantization.feedback.factors import unit_upper
from phiquant.quantization.feedback.multiples import WIDEST, best_multiple
from phiquant.quantization.feedback.two_sided import two_sided_kernel
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Levels
from phiquant.quantization.levels import concatenate

STEP = 128
"""Columns between two matrix products: within a step, feedback goes from column to column."""
SOLVED = 512
"""Columns between two matrix products of a substitution, and the rows that one core takes."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A layer's second moment, factored for rounding.

    `order` (n,) are the columns in the order in which they are rounded; `factors` (n, n) is U and
    `penalties` (n,) the diagonal of D, both in that order.
    """

    order: npt.NDArray[np.intp]
    factors: Floats
    penalties: Floats

    @classmethod
    def of(cls, moment: Floats, block: int) -> "Feedback":
        """Factor a damped `moment` (n, n) for a grid with blocks of `block` columns."""
        order = rounding_order(np.diagonal(moment), block)
        return cls(order, *unit_upper(moment[np.ix_(order, order)]))

    def divided(self, moments: Floats) -> Floats:
        """`moments` (rows, n) times the inverse of the moment, U⁻ᵀ D⁻¹ U⁻¹.

        Solved by substitution, SOLVED columns at a time: all else is matrix products.
        """
        steps = range(0, len(self.order), SOLVED)
        blocks = [self.factors[at : at + SOLVED, at : at + SOLVED] for at in steps]
        inverses = [np.linalg.inv(block) for block in blocks]
        answer = np.empty_like(moments)

        def work(row: int) -> None:
            rows = slice(row, row + SOLVED)
            solved = moments[rows][:, self.order]
            for first, inverse in zip(reversed(steps), reversed(inverses), strict=True):
                here, after = slice(first, first + SOLVED), slice(first + SOLVED, None)
                due = solved[:, after] @ self.factors[here, after].T
                solved[:, here] = (solved[:, here] - due) @ inverse.T
            solved /= self.penalties
            for first, inverse in zip(steps, inverses, strict=True):
                here, before = slice(first, first + SOLVED), slice(first)
                due = solved[:, before] @ self.factors[before, here]
                solved[:, here] = (solved[:, here] - due) @ inverse
            answer[rows, self.order] = solved

        for_each(range(0, len(moments), SOLVED), work)
        return answer


def rounding_order(importance: Floats, block: int) -> npt.NDArray[np.intp]:
    """The columns (n,): blocks by descending mean importance, and each block's columns likewise."""
    grouped = importance.reshape(-1, block)
    blocks = np.argsort(-grouped.mean(axis=1), kind="stable")
    columns = np.argsort(-grouped, axis=1, kind="stable")
    return (blocks[:, None] * block + columns[blocks]).reshape(-1)


def round_with_feedback(
    weights: Floats,
    feedback: Feedback,
    grid: AffineGrid,
    multiples: Sequence[float] = (),
    across: Floats | None = None,
) -> tuple[Codes, Levels]:
    """Codes (rows, n) and levels of `weights` (rows, n) on `grid`, whose blocks divide n.

    The order of `feedback` must have been made for the grid's block. A block's levels may become
    one of `multiples` of the fitted ones. With the factors `across` (rows, rows), errors are
    also passed on from row to row (see `two_sided`); without, rows are independent.
    """
    rows, columns = weights.shape
    order, block = feedback.order, grid.block
    codes = np.empty((rows, columns), np.int16)
    errors = np.zeros((rows, columns), np.float32)  # in rounding order
    fitted: dict[int, Levels] = {}
    for first in range(0, columns, block):
        here = order[first : first + block]
        due = errors[:, :first] @ feedback.factors[:first, first : first + block]
        start = int(here.min())
        moved = np.empty((rows, block), np.float32)
        moved[:, here - start] = weights[:, here] + due
        importance = np.empty(block, np.float32)
        importance[here - start] = feedback.penalties[first : first + block]
        levels = grid.fit(moved, importance)
        places = _Places(here - start, (here - start) // grid.group)
        target = np.ascontiguousarray(weights[:, here])
        factors = feedback.factors[first : first + block, first : first + block]
        if multiples and block <= WIDEST:
            penalties = feedback.penalties[first : first + block]
            known = factors, penalties, places.groups
            levels = best_multiple(levels, grid, multiples, (target, due), known)
        codes[:, start : start + block], errors[:, first : first + block] = _round_block(
            (target, due), (factors, across), places, (levels, grid.code_range)
        )
        fitted[start] = levels
    return codes, concatenate([fitted[start] for start in sorted(fitted)])


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of a block's columns in the block and the groups they are in, both in rounding
    order.
    """

    columns: npt.NDArray[np.intp]
    groups: npt.NDArray[np.intp]


def _round_block(
    weights: tuple[Floats, Floats],
    factors: tuple[Floats, Floats | None],
    places: _Places,
    levels: tuple[Levels, tuple[int, int]],
) -> tuple[Codes, Floats]:
    """Codes of one block in storage order, and its errors in rounding order.

    `weights` are the block's weights and the feedback due from earlier blocks, both (rows,
    columns) in rounding order; `factors` are those between its columns and those between
    rows, or None; `levels` come with the least and the greatest code.
    """
    target, due = weights
    along, across = factors
    fitted, (least, greatest) = levels
    low, high = np.float32(least), np.float32(greatest)
    codes = np.empty(target.shape, np.int16)
    errors = np.empty(target.shape, np.float32)
    for first in range(0, target.shape[1], STEP):
        last = min(first + STEP, target.shape[1])
        step = due[:, first:last] + errors[:, :first] @ along[:first, first:last]
        rounded = np.empty(step.shape, np.int16)
        left = np.empty(step.shape, np.float32)
        here = np.ascontiguousarray(target[:, first:last])
        within = np.ascontiguousarray(along[first:last, first:last])
        known = fitted.scale, fitted.offset, places.groups[first:last], low, high
        if across is None:
            feedback_kernel(here, step, within, known, (rounded, left))
        else:
            two_sided_kernel(here, step, (within, across), known, (rounded, left))
        codes[:, places.columns[first:last]] = rounded
        errors[:, first:last] = left
    return codes, errors


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def feedback_kernel(
    weights: Floats,
    due: Floats,
    factors: Floats,
    levels: tuple[Floats, Floats, npt.NDArray[np.intp], np.float32, np.float32],
    out: tuple[Codes, Floats],
) -> None:
    """Round a step of columns (rows, n) one by one, passing on errors within the step.

    `due` is overwritten. `levels` are scale and offset (rows, groups), each column's group, the
    least and the greatest code; `out` is filled with codes and errors (rows, n).
    """
    scales, offsets, groups, low, high = levels
    codes, errors = out
    for row in range(weights.shape[0]):
        target = due[row]
        for j in range(weights.shape[1]):
            scale = scales[row, groups[j]]
            offset = offsets[row, groups[j]]
            wanted = weights[row, j] + target[j]
            code = np.float32(0)
            if scale != 0:
                code = np.rint((wanted - offset) / scale)
            code = min(max(code, low), high)
            error = weights[row, j] - (scale * code + offset)
            codes[row, j] = np.int16(code)
            errors[row, j] = error
            for k in range(j + 1, weights.shape[1]):
                target[k] += error * factors[j, k]
