"""Feedback for inputs of which means and mean squares alone are known, in linear time.

Inputs have means: some channels carry nearly the same value for every token, so what rounding does
to a row's sum with them, (w - v) μ, is the same error for all tokens. Attention averages values
over tokens, and cancels every error but such. With channels independent around their means μ, of
variance σ², the second moment of inputs is diag(σ²) + μ μᵀ, and a row's errors e = w - v cost

    Σ_j σ_j² e_j² + (Σ_j μ_j e_j)²

Rounding column by column, given a = Σ_{k<j} μ_k e_k, the columns from j on do their best with

    e_j = -a (μ_j / σ_j²) / (1 + Σ_{k≥j} μ_k² / σ_k²)

so weight j goes to the level nearest to w_j - e_j. This is GPTQ (https://arxiv.org/abs/2210.17323)
for that moment, whose Cholesky factor has this closed form: where `columns` takes the square of a
row's length for each of its weights, here a number does. Columns are taken by descending mean
square: what is small and varied comes last, and makes good best.

Levels stay those that `Grid.encode` would have, the best for the mean squares.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.affine import encode_with
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Grid, Levels, grid_over
from phiquant.quantization.inputs import Inputs

LEAST = 0.3
"""The least variance, as a share of the mean square. A channel that never varies would otherwise
take errors of any size to make good for others. Two small models in 4 bits did best with 0.3, and
little worse with anything from 0.02 to 1."""


TOGETHER = 16
"""Rows whose columns take turns: a column waits for the one before it in its own row, not for
other rows."""


@dataclass(frozen=True, slots=True)
class MeanFeedback:
    """μ, and the share of a row's errors so far that each column makes good.

    All are (columns,), in the order in which columns are rounded; `order` has the columns' numbers.
    """

    order: npt.NDArray[np.intp]
    means: Floats
    shares: Floats

    @classmethod
    def of(cls, squares: Floats, means: Floats) -> "MeanFeedback":
        """The feedback for inputs of these mean squares and means, (columns,) each."""
        order = np.argsort(-squares, kind="stable")
        mean = means[order].astype(np.float64)
        square = squares[order].astype(np.float64)
        variance = np.maximum(square - mean**2, LEAST * square + 1e-30)
        steadiness = np.cumsum((mean**2 / variance)[::-1])[::-1]
        shares = mean / variance / (1 + steadiness)
        return cls(order, mean.astype(np.float32), shares.astype(np.float32))


def encode_for(
    grid: Grid, weights: Floats, inputs: Inputs | None
) -> dict[str, npt.NDArray[np.generic]]:
    """The stored parts of `weights` (rows, columns) that are to be multiplied by `inputs`.

    Where means are not known, and on a grid without codes, they are rounded by `Grid.encode`.
    Raises ValueError on a non-finite or unrepresentable weight.
    """
    if inputs is None:
        return grid.encode(weights)
    if inputs.means is None or not hasattr(grid, "fit"):
        return grid.encode(weights, inputs.squares)
    spelt = cast(AffineGrid, grid_over(grid, weights.shape[1]))
    feedback = MeanFeedback.of(inputs.squares, inputs.means)

    def codes_of(band: Floats, levels: Levels) -> Codes:
        return codes_with_means(band, levels, feedback, spelt)

    return encode_with(spelt, weights, inputs.squares, codes_of)


def codes_with_means(
    weights: Floats, levels: Levels, feedback: MeanFeedback, grid: AffineGrid
) -> Codes:
    """Codes (rows, columns) on `levels`, chosen with feedback."""
    codes = np.empty(weights.shape, np.int16)
    low, high = grid.code_range
    mean_feedback_kernel(
        weights,
        (levels.scale, levels.offset, feedback.order // grid.group),
        (feedback.order, feedback.means, feedback.shares),
        (np.float32(low), np.float32(high)),
        codes,
    )
    return codes


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def mean_feedback_kernel(
    weights: Floats,
    levels: tuple[Floats, Floats, npt.NDArray[np.intp]],
    feedback: tuple[npt.NDArray[np.intp], Floats, Floats],
    ends: tuple[np.float32, np.float32],
    codes: Codes,
) -> None:
    """Fill `codes` (rows, columns); `ends` are the least and the greatest code.

    `levels` are scale and offset (rows, groups), and each column's group in rounding order.
    """
    scales, offsets, groups = levels
    order, means, shares = feedback
    low, high = ends
    gone = np.empty(TOGETHER, np.float32)
    for first in range(0, weights.shape[0], TOGETHER):
        count = min(TOGETHER, weights.shape[0] - first)
        gone[:] = 0
        for turn in range(order.size):
            column, group = order[turn], groups[turn]
            for at in range(count):
                row = first + at
                scale, offset = scales[row, group], offsets[row, group]
                weight = weights[row, column]
                code = np.float32(0)
                if scale != 0:
                    code = np.rint((weight + gone[at] * shares[turn] - offset) / scale)
                code = min(max(code, low), high)
                codes[row, column] = np.int16(code)
                gone[at] += (weight - (scale * code + offset)) * means[turn]
