"""A first look at many starts where zero is a level and all weights are alike, two at a time.

A start is a scale s and the least and the greatest whole number d of scales that a weight may
decode to, s d. With Σ d² and Σ x d the squared error is Σ x² - 2 s Σ x d + s² Σ d², least for
s = Σ x d / Σ d²: a third of the arithmetic of the residual moments in `lanes`, and Σ x² is the
same for all starts. The difference of large sums is off by about 10⁻⁶ Σ x²: next to the error of
4-bit codes, a hundredth of Σ x², that does not matter; next to that of 8-bit codes it would. So
this only proposes where to begin; what is kept is judged by residuals (`one_level.refit`).
"""

from typing import NamedTuple

import numpy as np

from phiquant.host.kernel import njit
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.lanes import (
    FAR,
    FINEST,
    INLINED,
    INNER,
    INVERSE,
    LANES,
    LIMIT,
    NEXT_ERROR,
    NEXT_OFFSET,
    NEXT_SCALE,
    OFFSET,
    STEP,
    STRICT,
    TILE,
    TINY,
    TWO,
    ZERO,
    Lanes,
    Rules,
    rounded,
)
from phiquant.quantization.search.starts import start_by_kind

BINARY_POINT = np.float32(1.5 * 2**23)
"""Added to a float32 of magnitude below 2²², it rounds that to a whole number, ties to even."""

# Rows of the array of one start, as in `lanes`.
RECIPROCAL = 0 * LANES
LOW = 1 * LANES  # BINARY_POINT more than the least d, and than the greatest
HIGH = 2 * LANES
SQUARES = 3 * LANES  # Σ d²
PRODUCTS = 4 * LANES  # Σ x d
ZERO_CODE = 5 * LANES
ROWS = 6 * LANES

NARROW = 16
"""The most codes with which a scan can tell starts apart."""


class StartPair(NamedTuple):
    """Two starts, of ROWS each."""

    a: Floats
    b: Floats


@njit(**INNER, fastmath=STRICT)
def take_start(lanes: Lanes, rules: Rules, start: Floats) -> None:
    """Make the present levels of the lanes a start; its sums are 0."""
    p = lanes.p
    for lane in range(LANES):
        zero = np.rint(-p[OFFSET + lane] * p[INVERSE + lane])
        start[RECIPROCAL + lane] = p[INVERSE + lane]
        start[LOW + lane] = BINARY_POINT + (rules.low - zero)
        start[HIGH + lane] = BINARY_POINT + (rules.high - zero)
        start[SQUARES + lane] = ZERO
        start[PRODUCTS + lane] = ZERO
        start[ZERO_CODE + lane] = zero


@njit(**INLINED, fastmath=STRICT)
def scan_tile(x: Floats, pair: StartPair) -> None:
    """Add the sums of TILE weights of every lane."""
    a, b = pair
    for lane in range(LANES):
        reciprocal_a = a[RECIPROCAL + lane]
        reciprocal_b = b[RECIPROCAL + lane]
        low_a = a[LOW + lane]
        low_b = b[LOW + lane]
        high_a = a[HIGH + lane]
        high_b = b[HIGH + lane]
        squares_a = a[SQUARES + lane]
        squares_b = b[SQUARES + lane]
        products_a = a[PRODUCTS + lane]
        products_b = b[PRODUCTS + lane]
        for j in range(TILE):
            here = x[j * LANES + lane]
            whole_a = here * reciprocal_a + BINARY_POINT
            whole_b = here * reciprocal_b + BINARY_POINT
            d_a = min(max(whole_a, low_a), high_a) - BINARY_POINT
            d_b = min(max(whole_b, low_b), high_b) - BINARY_POINT
            squares_a += d_a * d_a
            squares_b += d_b * d_b
            products_a += here * d_a
            products_b += here * d_b
        a[SQUARES + lane] = squares_a
        b[SQUARES + lane] = squares_b
        a[PRODUCTS + lane] = products_a
        b[PRODUCTS + lane] = products_b


@njit(**INNER, fastmath=STRICT)
def propose_scanned(lanes: Lanes, rules: Rules, start: Floats) -> None:
    """Propose the best scale for the codes of a start, if its error is the least so far.

    The error leaves out Σ x², which `lanes` has in it.
    """
    p, u = lanes.p, lanes.u
    for lane in range(LANES):
        squares = start[SQUARES + lane]
        products = start[PRODUCTS + lane]
        scale = products / squares if squares > TINY else ZERO
        scale = rounded(scale, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        error = scale * (scale * squares - TWO * products)
        better = error < p[NEXT_ERROR + lane]
        p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
        p[NEXT_SCALE + lane] = scale if better else p[NEXT_SCALE + lane]
        offset = -scale * start[ZERO_CODE + lane]
        p[NEXT_OFFSET + lane] = offset if better else p[NEXT_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def forget_proposal(lanes: Lanes) -> None:
    """Forget the proposed error, which leaves out Σ x²; the refits' errors have it."""
    for lane in range(LANES):
        lanes.p[NEXT_ERROR + lane] = FAR


@njit(**INNER, fastmath=STRICT)
def scan(lanes: Lanes, rules: Rules, pair: StartPair) -> None:
    """Gather the sums of two starts, and propose where they lead."""
    x = lanes.x
    for at in range(0, x.size, STEP):
        scan_tile(x[at : at + STEP], pair)
    propose_scanned(lanes, rules, pair.a)
    propose_scanned(lanes, rules, pair.b)


@njit(**INLINED, fastmath=STRICT)
def scan_starts(lanes: Lanes, rules: Rules, pair: StartPair) -> None:
    """The best proposal of all starts, two at a time."""
    count = rules.starts.shape[0]
    for k in range(0, count, 2):
        start_by_kind(lanes, rules, k)
        take_start(lanes, rules, pair.a)
        start_by_kind(lanes, rules, min(k + 1, count - 1))
        take_start(lanes, rules, pair.b)
        scan(lanes, rules, pair)
    forget_proposal(lanes)
