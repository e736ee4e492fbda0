"""YAQA: errors made good across rows too, by what the outputs are worth to the model's answer.

A linear layer's outputs differ in how much the model's answer depends on them, and their errors
can cancel each other. With g the gradient of the log-likelihood with respect to the outputs, H =
E[x xᵀ] and G = E[g gᵀ], the Kronecker-factored curvature of the KL divergence gives errors E = W
- V the cost tr(G E H Eᵀ) (Model-Preserving Adaptive Rounding, https://arxiv.org/abs/2505.22988).
With G = R C Rᵀ and H = U D Uᵀ, R and U upper triangular of unit diagonal,

    tr(G E H Eᵀ) = Σ_ij C_i D_j (f_ij + Σ_{k<i} R_ki f_kj)²,  f_ij = e_ij + Σ_{k<j} e_ik U_kj

so weight i, j is rounded to the level nearest to w_ij + Σ_{k<j} e_ik U_kj + Σ_{k<i} R_ki f_kj:
columns one after another as in `columns`, and within a column row after row. Rows are taken by
descending G_ii, so that what matters most is rounded first. Afterwards codes are improved, each
given all others, as in `descent`: the minimum along e_ij is at a move of (G E H)_ij / (G_ii H_jj).

Left out: G between rows that are not rounded together (`rounder.ROWS`), so that bands of rows
stay independent; and G in the fit of groups' levels, which stays the one for each row alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.grid import Codes, Floats

StepLevels = tuple[Floats, Floats, npt.NDArray[np.intp], np.float32, np.float32]
"""Scale and offset (rows, groups), each column's group, the least and the greatest code."""


@dataclass(frozen=True, slots=True)
class RowFeedback:
    """The outputs' moment of rows that are rounded together.

    `order` (n,) are the rows in the order in which they are rounded; `factors` (n, n) is R and
    `moment` (n, n) is G, damped and of mean diagonal 1, both in that order.
    """

    order: npt.NDArray[np.intp]
    factors: Floats
    moment: Floats

    @classmethod
    def of(cls, moment: Floats, damping: float) -> "RowFeedback":
        """Factor `moment` (n, n), with `damping` times its mean diagonal added."""
        order = np.argsort(-np.diagonal(moment), kind="stable")
        damped = moment[np.ix_(order, order)].astype(np.float64)
        damped[np.diag_indices_from(damped)] += damping * damped.trace() / len(damped) + 1e-30
        damped /= damped.trace() / len(damped)
        # The lower factor of the reversed matrix, reversed, is the upper factor of the matrix.
        upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
        factors = np.ascontiguousarray(upper / np.diagonal(upper), np.float32)
        return cls(order, factors, damped.astype(np.float32))


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def two_sided_kernel(
    weights: Floats,
    due: Floats,
    factors: tuple[Floats, Floats],
    levels: StepLevels,
    out: tuple[Codes, Floats],
) -> None:
    """`columns.feedback_kernel` with errors passed on within each column from row to row.

    `factors` are those between the columns and those between the rows.
    """
    along, across = factors
    scales, offsets, groups, low, high = levels
    codes, errors = out
    rows, columns = weights.shape
    passed = np.empty(rows, np.float32)
    for j in range(columns):
        passed[:] = 0
        for row in range(rows):
            scale = scales[row, groups[j]]
            offset = offsets[row, groups[j]]
            wanted = weights[row, j] + due[row, j]
            code = np.float32(0)
            if scale != 0:
                code = np.rint((wanted + passed[row] - offset) / scale)
            code = min(max(code, low), high)
            value = scale * code + offset
            left = wanted - value
            for k in range(row + 1, rows):
                passed[k] += left * across[row, k]
            error = weights[row, j] - value
            codes[row, j] = np.int16(code)
            errors[row, j] = error
            for k in range(j + 1, columns):
                due[row, k] += error * along[j, k]


@kernel(fastmath={"contract", "nsz", "reassoc"})
def _dot(left: Floats, right: Floats) -> np.float32:
    """The dot product, summed in any order: a kernel of its own, so that no other sum is."""
    total = np.float32(0)
    for k in range(left.size):
        total += left[k] * right[k]
    return total


@kernel(error_model="numpy", fastmath={"contract", "nsz"})
def two_sided_descent_kernel(
    codes: Codes,
    errors: Floats,
    slopes: Floats,
    moments: tuple[Floats, Floats],
    levels: StepLevels,
) -> None:
    """`descent.descent_kernel` for rows that are not independent; `slopes` are E H there.

    `moments` are H between the columns and G between the rows. Columns are taken one after
    another, and the rows of each.
    """
    moment, across = moments
    scales, offsets, groups, low, high = levels
    rows, columns = codes.shape
    column = np.empty(rows, np.float32)
    for j in range(columns):
        column[:] = slopes[:, j]
        for row in range(rows):
            scale = scales[row, groups[j]]
            if scale == 0:
                continue
            old = np.float32(codes[row, j])
            value = scale * old + offsets[row, groups[j]]
            slope = _dot(across[row], column) / across[row, row]
            wanted = value + slope / moment[j, j]
            code = np.rint((wanted - offsets[row, groups[j]]) / scale)
            code = min(max(code, low), high)
            if code != old:
                change = scale * (old - code)
                codes[row, j] = np.int16(code)
                errors[row, j] += change
                for k in range(columns):
                    slopes[row, k] += change * moment[j, k]
                column[row] = slopes[row, j]
