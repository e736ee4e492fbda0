"""Where the search for a group's levels begins, a lane a group.

The range of the group's weights, divided by somewhat more or fewer scales than there are codes and
cut at the lower end, the upper end or between; or levels that meet one weight exactly.
"""

import numpy as np

from phiquant.host.kernel import njit
from phiquant.quantization.search.lanes import (
    FINEST,
    GREATEST,
    INLINED,
    INNER,
    INVERSE,
    LANES,
    LEAST,
    LIMIT,
    OFFSET,
    SCALE,
    STRICT,
    ZERO,
    Lanes,
    Real,
    Rules,
    inverse,
    rounded,
)


@njit(**INNER, fastmath=STRICT)
def zero_code(offset: Real, inverse: Real, rules: Rules) -> Real:
    """The code whose level is nearest to 0."""
    return min(max(np.rint(-offset * inverse), rules.low), rules.high)


@njit(**INNER, fastmath=STRICT)
def start(lanes: Lanes, rules: Rules, steps: Real, cut: Real) -> None:
    """Set levels in which the group's range spans `steps` scales; `cut` says where it is cut.

    With 0 the lowest level is the least weight, with 1 the highest level the greatest.
    """
    p, u = lanes.p, lanes.u
    for lane in range(LANES):
        finest = u[FINEST + lane]
        limit = u[LIMIT + lane]
        span = p[GREATEST + lane] - p[LEAST + lane]
        scale = rounded(span / steps, rules.magic, finest, limit)
        offset = min(p[LEAST + lane] + cut * (span - scale * rules.high), rules.ceiling)
        if rules.zeroed:
            offset = -scale * zero_code(offset, inverse(scale), rules)
        p[SCALE + lane] = scale
        p[OFFSET + lane] = rounded(offset, rules.magic, finest, limit)
        p[INVERSE + lane] = inverse(scale)


@njit(**INNER, fastmath=STRICT)
def start_zero_point(lanes: Lanes, rules: Rules, steps: Real, cut: Real) -> None:
    """`start` with the range widened to hold 0, and with a code that decodes to 0 exactly."""
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
def start_aligned(lanes: Lanes, rules: Rules) -> None:
    """Set levels that include 0 and the weight of greatest magnitude, as mx.quantize does.

    They suit groups of zeros with a few outliers. The offset is the weight of greatest magnitude;
    the scale is negative where that weight is positive.
    """
    p, u = lanes.p, lanes.u
    for lane in range(LANES):
        least = p[LEAST + lane]
        greatest = p[GREATEST + lane]
        below = -least > greatest
        step = (greatest - least) / rules.high
        step = step if below else -step
        edge = least if below else greatest
        count = np.rint(edge * inverse(step))
        step = edge / count if count != ZERO else step
        finest = u[FINEST + lane]
        limit = u[LIMIT + lane]
        scale = rounded(step, rules.magic, finest, limit)
        p[SCALE + lane] = scale
        offset = edge if count != ZERO or greatest == least else ZERO
        p[OFFSET + lane] = rounded(offset, rules.magic, finest, limit)
        p[INVERSE + lane] = inverse(scale)


@njit(**INNER, fastmath=STRICT)
def start_symmetric(lanes: Lanes, rules: Rules, steps: Real) -> None:
    """Set levels without an offset, so that code `steps` is the weight of greatest magnitude."""
    p, u = lanes.p, lanes.u
    for lane in range(LANES):
        low = p[LEAST + lane]
        high = p[GREATEST + lane]
        extreme = high if high > -low else low
        scale = rounded(extreme / steps, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        p[SCALE + lane] = scale
        p[OFFSET + lane] = ZERO
        p[INVERSE + lane] = inverse(scale)


@njit(**INLINED, fastmath=STRICT)
def start_by_kind(lanes: Lanes, rules: Rules, k: int) -> None:
    """Set the levels of start `k` of the table, by what the format stores."""
    steps, cut = rules.starts[k, 0], rules.starts[k, 1]
    if rules.symmetric:
        start_symmetric(lanes, rules, steps)
    elif rules.zero_point:
        start_zero_point(lanes, rules, steps, cut)
    else:
        start(lanes, rules, steps, cut)
