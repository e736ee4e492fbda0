"""A second moment's factors: M = U D Uᵀ, U upper triangular of unit diagonal, D diagonal.

Cholesky's decomposition from the last column to the first, in blocks (Golub and Van Loan, Matrix
Computations, section 4.2.9): a block on the diagonal is factored, the panel above it divided by
its factor, and the panel's products taken from what is left. So nearly all of it is matrix
products, which go over the cores; `numpy.linalg.cholesky`, which factors the small blocks here,
copies a large matrix column by column.
"""

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.weights import Doubles, Floats

BLOCK = 512
"""Columns that are factored at a time, and rows that one core works on."""


def damped(moment: Floats, damping: float) -> Floats:
    """`moment` (n, n) with `damping` times the mean of its diagonal added to the diagonal.

    The addition stands for inputs that the calibration text does not show, and bounds the feedback.
    """
    stiffer = moment.copy()
    stiffer[np.diag_indices_from(stiffer)] += damping * float(np.diagonal(moment).mean()) + 1e-30
    return stiffer


def unit_upper(moment: Floats) -> tuple[Floats, Floats]:
    """U (n, n) and the diagonal of D (n,) of a symmetric `moment` (n, n), which becomes U.

    Blocks are factored in float64 and products taken in float32. That is enough as long as no
    input is nearly a sum of others, which damping sees to. Raises LinAlgError where `moment`
    is not positive definite.
    """
    diagonal = np.empty(len(moment), np.float32)
    for first in reversed(range(0, len(moment), BLOCK)):
        here = slice(first, first + BLOCK)
        # The lower factor of the reversed block, reversed, is the upper factor of the block.
        flipped = moment[here, here][::-1, ::-1].astype(np.float64)
        upper = np.asarray(np.linalg.cholesky(flipped), np.float64)[::-1, ::-1]
        roots = np.diagonal(upper)
        _take_out(moment[:first], here, upper)
        moment[here, here] = upper / roots
        moment[here, :first] = 0
        diagonal[here] = np.square(roots)
    return moment, diagonal


def _take_out(above: Floats, here: slice, upper: Doubles) -> None:
    """Divide the columns `here` of the rows `above` by the factor of their block, scaled to a unit
    diagonal, and subtract the products of these columns from the columns before them.
    """
    inverse = np.linalg.inv(upper).T.astype(np.float32)
    roots = np.diagonal(upper).astype(np.float32)
    panel = np.empty((len(above), len(roots)), np.float32)
    starts = range(0, len(above), BLOCK)

    def divide(first: int) -> None:
        rows = slice(first, first + BLOCK)
        panel[rows] = above[rows, here] @ inverse
        above[rows, here] = panel[rows] / roots

    def subtract(first: int) -> None:
        rows = slice(first, first + BLOCK)
        above[rows, first : len(above)] -= panel[rows] @ panel[first:].T

    for_each(starts, divide)
    for_each(starts, subtract)
