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

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel, njit
from phiquant.quantization.affine import encode_with
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Grid, Levels, grid_over
from phiquant.quantization.inputs import Inputs
from phiquant.quantization.search.lanes import INNER
from phiquant.quantization.search.transposition import SIDE, transpose_block

LEAST = 0.3
"""The least variance, as a share of the mean square. A channel that never varies would otherwise
take errors of any size to make good for others. Two small models in 4 bits did best with 0.3, and
little worse with anything from 0.02 to 1."""


TOGETHER = 32
"""Rows that are rounded side by side, each in a SIMD lane of its own: a column waits for the one
before it in its own row, not for other rows."""
LINE = 16
"""Floats in a line of the cache."""
ACROSS = 64
"""Columns that are transposed back together: few enough that all rows of them stay in the cache."""


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
    return encoder_for(grid, inputs)(weights)


def encoder_for(
    grid: Grid, inputs: Inputs | None
) -> Callable[[Floats], dict[str, npt.NDArray[np.generic]]]:
    """`encode_for` of any weights with these inputs; what only inputs decide is computed once."""
    if inputs is None:
        return grid.encode
    squares = inputs.squares
    if inputs.means is None or not hasattr(grid, "fit"):
        return lambda weights: grid.encode(weights, squares)
    spelt = cast(AffineGrid, grid_over(grid, squares.size))
    feedback = MeanFeedback.of(squares, inputs.means)

    def codes_of(band: Floats, levels: Levels) -> Codes:
        return codes_with_means(band, levels, feedback, spelt)

    return lambda weights: encode_with(spelt, weights, squares, codes_of)


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

    `levels` are scale and offset (rows, groups), and each column's group in rounding order. What
    belongs to TOGETHER rows is transposed first, so that a column of all of them lies side by side:
    lane `at` of it is element `column * TOGETHER + at`.
    """
    scales, offsets, groups = levels
    order, means, shares = feedback
    low, high = ends
    rows, columns = weights.shape
    turned = np.zeros(columns * TOGETHER, np.float32)
    rounded = np.zeros(columns * TOGETHER, np.float32)
    steps = np.zeros(scales.shape[1] * TOGETHER, np.float32)
    bases = np.zeros(scales.shape[1] * TOGETHER, np.float32)
    gone = np.empty(TOGETHER, np.float32)
    space = np.empty(TOGETHER * ACROSS, np.float32)
    for first in range(0, rows, TOGETHER):
        count = min(TOGETHER, rows - first)
        _to_lanes(weights[first : first + count], turned)
        _to_lanes(scales[first : first + count], steps)
        _to_lanes(offsets[first : first + count], bases)
        gone[:] = 0
        for turn in range(order.size):
            column, group = order[turn] * TOGETHER, groups[turn] * TOGETHER
            weight, code = turned[column : column + TOGETHER], rounded[column : column + TOGETHER]
            step, base = steps[group : group + TOGETHER], bases[group : group + TOGETHER]
            share, mean = shares[turn], means[turn]
            for at in range(TOGETHER):
                divisor = step[at] if step[at] != 0 else np.float32(1)
                nearest = np.rint((weight[at] + gone[at] * share - base[at]) / divisor)
                kept = min(max(nearest if step[at] != 0 else np.float32(0), low), high)
                code[at] = kept
                gone[at] += (weight[at] - (step[at] * kept + base[at])) * mean
        _from_lanes(rounded, space, codes[first : first + count])


@njit(**INNER)
def _to_lanes(values: Floats, lanes: Floats) -> None:
    """Transpose at most TOGETHER rows of `values` into flat `lanes`."""
    count, columns = values.shape
    flat = values.reshape(-1)
    whole = columns - columns % LINE if count == TOGETHER else 0
    for column in range(0, whole, LINE):
        for at in range(0, TOGETHER, SIDE):
            for half in range(column, column + LINE, SIDE):
                source, to = at * columns + half, half * TOGETHER + at
                transpose_block(flat, source, columns, lanes, to, TOGETHER)
    for at in range(count):
        for column in range(whole, columns):
            lanes[column * TOGETHER + at] = values[at, column]


@njit(**INNER)
def _from_lanes(lanes: Floats, space: Floats, codes: Codes) -> None:
    """Transpose flat `lanes` into at most TOGETHER rows of `codes`, by way of `space`."""
    count, columns = codes.shape
    whole = columns - columns % ACROSS
    for first in range(0, whole, ACROSS):
        for column in range(0, ACROSS, SIDE):
            for at in range(0, TOGETHER, SIDE):
                source = (first + column) * TOGETHER + at
                transpose_block(lanes, source, TOGETHER, space, at * ACROSS + column, ACROSS)
        for at in range(count):
            into, row = codes[at, first : first + ACROSS], space[at * ACROSS : (at + 1) * ACROSS]
            for column in range(ACROSS):
                into[column] = np.int16(row[column])
    for at in range(count):
        for column in range(whole, columns):
            codes[at, column] = np.int16(lanes[column * TOGETHER + at])
