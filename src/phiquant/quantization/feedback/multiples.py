"""Which of several levels of a block costs least once its columns are rounded with feedback.

Levels are fitted to a block's weights when it is reached, each error on its own. But within the
block errors are passed on too, so that levels somewhat finer or wider may leave less in the end.
Here the block is rounded on each of a few multiples of the fitted levels, as the format stores
them, and every row keeps those with the least Σ_j D_j (w_j + due_j - v_j)², what the block adds to
the cost of the row (see `columns`). The multiples scale all parameters of a block alike, so that
a level that is 0 stays 0.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.grid import AffineGrid, Floats, Levels

WIDEST = 128
"""Columns of the widest block that is tried: the time of a trial goes with their square."""


def best_multiple(
    fitted: Levels,
    grid: AffineGrid,
    multiples: Sequence[float],
    weights: tuple[Floats, Floats],
    feedback: tuple[Floats, Floats, npt.NDArray[np.intp]],
) -> Levels:
    """The levels of one block, for each row the best of `fitted` and its `multiples`.

    `weights` are the block's weights and the feedback due to it, (rows, columns) in rounding
    order; `feedback` the factors (columns, columns) and penalties (columns,) in that order, and
    each column's group.
    """
    own = grid.parameters(fitted)
    asked = [[np.float32(factor) * part for part in own] for factor in multiples]
    tried = [fitted, *(grid.with_parameters(fitted, parameters) for parameters in asked)]
    factors, penalties, groups = feedback
    low, high = grid.code_range
    choice = np.empty(len(weights[0]), np.intp)
    choice_kernel(
        weights,
        (np.ascontiguousarray(factors), penalties, groups),
        (
            np.stack([levels.scale for levels in tried]),
            np.stack([levels.offset for levels in tried]),
        ),
        (np.float32(low), np.float32(high)),
        choice,
    )
    stored = [np.stack(parts) for parts in zip(*map(grid.parameters, tried), strict=True)]
    rows = np.arange(len(choice))
    return grid.with_parameters(fitted, [part[choice, rows] for part in stored])


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def choice_kernel(
    weights: tuple[Floats, Floats],
    feedback: tuple[Floats, Floats, npt.NDArray[np.intp]],
    levels: tuple[Floats, Floats],
    ends: tuple[np.float32, np.float32],
    choice: npt.NDArray[np.intp],
) -> None:
    """Fill `choice` (rows,) with the number of the trial whose levels cost each row least.

    `levels` are scales and offsets, (trials, rows, groups); `ends` the least and greatest code.
    """
    given, due = weights
    factors, penalties, groups = feedback
    scales, offsets = levels
    low, high = ends
    columns = given.shape[1]
    passed = np.empty(columns, np.float32)
    for row in range(given.shape[0]):
        least = np.float32(np.inf)
        for trial in range(scales.shape[0]):
            passed[:] = due[row]
            total = np.float32(0)
            for j in range(columns):
                scale = scales[trial, row, groups[j]]
                offset = offsets[trial, row, groups[j]]
                wanted = given[row, j] + passed[j]
                code = np.float32(0)
                if scale != 0:
                    code = np.rint((wanted - offset) / scale)
                value = scale * min(max(code, low), high) + offset
                miss = wanted - value
                total += penalties[j] * miss * miss
                if total >= least:
                    break
                error = given[row, j] - value
                for k in range(j + 1, columns):
                    passed[k] += error * factors[j, k]
            if total < least:
                least = total
                choice[row] = trial
