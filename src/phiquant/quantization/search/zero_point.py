"""Searched rounding of groups whose offset is an integer number of scales: `scale * (code - z)`.

The levels of a group are its scale and a zero point z among the codes, so zero is always a level.
Every start gives a scale and an offset as in `scale_and_offset`; z is the offset in scales,
rounded. With z and the codes q held, the squared error is least for the scale

    s + Σ w e (q - z) / Σ w (q - z)²,    e = x - s (q - z)

whose sums follow from the moments of `lanes.accumulate`, because the offset is -s z:
Σ w e (q - z) = R1 - z R0 and Σ w (q - z)² = C2 - 2 z C1 + z² Σ w.
"""

import numpy as np
from numba import njit

from phiquant.host.kernel import kernel
from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import FloatType
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.lanes import (
    BEST_OFFSET,
    BEST_SCALE,
    C1,
    C2,
    FINEST,
    GREATEST,
    INNER,
    INVERSE,
    LANES,
    LEAST,
    LIMIT,
    MASS,
    MOMENTS,
    NEXT_ERROR,
    NEXT_OFFSET,
    NEXT_SCALE,
    OFFSET,
    PARAMETERS,
    R0,
    R1,
    SCALE,
    STRICT,
    TINY,
    TWO,
    UNIT,
    UNITS,
    ZERO,
    E,
    Lanes,
    Real,
    Rules,
    accumulate,
    inverse,
    load,
    load_importance,
    measure,
    rounded,
)
from phiquant.quantization.search.proposals import follow, keep
from phiquant.quantization.search.scale_and_offset import Search
from phiquant.quantization.search.scan import ROWS, Pair, forget_proposal, scan, take_start


@njit(**INNER, fastmath=STRICT)
def start_zero(lanes: Lanes, rules: Rules, steps: Real, cut: Real) -> None:
    """Levels whose range spans `steps` scales, zero among them; `cut` as in `starts.start`."""
    p, u = lanes.p, lanes.u
    top = rules.high
    for lane in range(LANES):
        least = min(p[LEAST + lane], ZERO)
        span = max(p[GREATEST + lane], ZERO) - least
        scale = rounded(span / steps, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        reciprocal = inverse(scale)
        lowest = least + cut * (span - scale * top)
        zero = min(max(np.rint(-lowest * reciprocal), ZERO), top)
        p[SCALE + lane] = scale
        p[OFFSET + lane] = -scale * zero
        p[INVERSE + lane] = reciprocal


@njit(**INNER, fastmath=STRICT)
def propose_zero(lanes: Lanes, rules: Rules) -> None:
    """The best scale for the present codes and zero point, if its error is the least proposed."""
    p, m, u = lanes.p, lanes.m, lanes.u
    for lane in range(LANES):
        scale = p[SCALE + lane]
        zero = np.rint(-p[OFFSET + lane] * p[INVERSE + lane])
        slope = m[R1 + lane] - zero * m[R0 + lane]
        mass = m[C2 + lane] - TWO * zero * m[C1 + lane] + zero * zero * p[MASS + lane]
        step = slope / mass if mass > TINY else ZERO
        new_scale = rounded(scale + step, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        a = new_scale - scale
        error = m[E + lane] + a * (a * mass - slope - slope)
        stay = m[E + lane] < error
        error = m[E + lane] if stay else error
        new_scale = scale if stay else new_scale
        better = error < p[NEXT_ERROR + lane]
        p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
        p[NEXT_SCALE + lane] = new_scale if better else p[NEXT_SCALE + lane]
        p[NEXT_OFFSET + lane] = -new_scale * zero if better else p[NEXT_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def scan_zero(lanes: Lanes, rules: Rules, pair: Pair) -> None:
    """The best proposal of all starts, by a scan of them two at a time."""
    starts = rules.starts
    for k in range(0, starts.shape[0], 2):
        start_zero(lanes, rules, starts[k, 0], starts[k, 1])
        take_start(lanes, rules, pair.a)
        other = min(k + 1, starts.shape[0] - 1)
        start_zero(lanes, rules, starts[other, 0], starts[other, 1])
        take_start(lanes, rules, pair.b)
        scan(lanes, rules, pair)
    forget_proposal(lanes)


@kernel(error_model="numpy", fastmath=STRICT)
def search_zero(
    weights: Floats, importance: Floats, rules: Rules, scales: Floats, zeros: Floats
) -> None:
    """Fill `scales` and `zeros`, one a group, for flat `weights`; see `scale_and_offset.search`."""
    size = weights.size // scales.size
    x = np.empty(size * LANES, np.float32)
    w = np.ones(size * LANES, np.float32)
    p = np.zeros(PARAMETERS, np.float32)
    m = np.zeros(MOMENTS, np.float32)
    u = np.zeros(UNITS, np.float32)
    lanes = Lanes(x, w, p, m, u)
    pair = Pair(np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32))
    count = rules.starts.shape[0]
    for first in range(0, scales.size, LANES):
        load(weights, first, lanes, rules)
        if importance.size > 0:
            load_importance(importance, first, w)
        measure(lanes)
        if rules.scanned:
            scan_zero(lanes, rules, pair)
        for k in range(count if rules.scanned else 0, count + rules.refits):
            if k >= count:
                follow(p)
            else:
                start_zero(lanes, rules, rules.starts[k, 0], rules.starts[k, 1])
            accumulate(lanes, rules)
            if k >= count:
                keep(lanes)
            propose_zero(lanes, rules)
        for lane in range(min(LANES, scales.size - first)):
            scale = p[BEST_SCALE + lane]
            zero = np.rint(-p[BEST_OFFSET + lane] * inverse(scale))
            scales[first + lane] = scale * u[UNIT + lane]
            zeros[first + lane] = min(max(zero, ZERO), rules.high)


def search_zero_points(
    weights: Floats, importance: Floats, plan: Search, kind: FloatType
) -> tuple[Floats, Floats]:
    """Scales and zero points (rows, groups) of `weights`; codes are 0 to `plan.codes[1]`.

    A weight decodes to scale * (code - zero point); scales are representable in `kind`.
    """
    rows, columns = weights.shape
    scale = np.empty((rows, columns // plan.size), np.float32)
    zeros = np.empty_like(scale)
    rules = plan.rules(kind)._replace(scanned=plan.narrow and importance.size == 0)

    def work(first: int, last: int) -> None:
        search_zero(
            np.ascontiguousarray(weights[first:last], np.float32).reshape(-1),
            importance,
            rules,
            scale[first:last].reshape(-1),
            zeros[first:last].reshape(-1),
        )

    in_bands(rows, columns, work)
    return scale, zeros
