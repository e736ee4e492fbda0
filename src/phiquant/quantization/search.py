"""Searched rounding of groups that store their own scale and offset.

The least (weighted) squared error of a group over (scale, offset) has many local minima: with
codes held it is a parabola, and the codes jump as the levels move. So a table of starts is
tried: the group's range divided by somewhat more or fewer scales than there are codes, cut at
the lower end, the upper end or between. Each start costs one pass, and its least-squares step,
rounded as the format stores it, has an error that is known without a second pass (it can only
be less once codes are chosen anew). The best proposal of all starts is followed and refitted a
few times; what is kept is always the error of levels exactly as stored.

The least squared error is not the least damage. Levels that miss 0 move the many small weights
of a group the same way, and these errors add up over a row instead of cancelling; they are worst
where small weights meet large activations. Where a format can store it, `zeroed` therefore keeps
0 among the levels: the squared error is a little greater, the divergence of the network less.

Compared with llama.cpp's make_qx_quants and make_qkx2_quants, which inspired the starts, the
cut at either end and the choice by proposal are new, and parameters are rounded before they are
judged, not after.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import FloatType
from phiquant.quantization.grid import Floats
from phiquant.quantization.lanes import (
    BEST_ERROR,
    BEST_OFFSET,
    BEST_SCALE,
    C1,
    C2,
    FAR,
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
    accumulate_decoded,
    inverse,
    load,
    load_importance,
    measure,
    rounded,
)
from phiquant.quantization.scan import NARROW, ROWS, Pair, forget_proposal, scan, take_start


@njit(**INNER, fastmath=STRICT)
def zero_code(offset: Real, inverse: Real, rules: Rules) -> Real:
    """The code whose level is nearest to 0."""
    return min(max(np.rint(-offset * inverse), rules.low), rules.high)


@njit(**INNER, fastmath=STRICT)
def start(lanes: Lanes, rules: Rules, steps: Real, cut: Real) -> None:
    """Levels in which the group's range spans `steps` scales; `cut` says where it is cut.

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
def start_aligned(lanes: Lanes, rules: Rules) -> None:
    """Levels one of which is 0 and one the weight of greatest magnitude, as mx.quantize sets them.

    Groups of zeros and a few outliers want these. The offset is that extreme weight, so the
    scale is negative where it is the greatest one.
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
    """Levels without an offset that reach the extreme weight with code `steps`."""
    p, u = lanes.p, lanes.u
    for lane in range(LANES):
        low = p[LEAST + lane]
        high = p[GREATEST + lane]
        extreme = high if high > -low else low
        scale = rounded(extreme / steps, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        p[SCALE + lane] = scale
        p[OFFSET + lane] = ZERO
        p[INVERSE + lane] = inverse(scale)


@njit(**INNER, fastmath=STRICT)
def keep(lanes: Lanes) -> None:
    """Remember the present levels of the lanes where they are the best so far."""
    p, m = lanes.p, lanes.m
    for lane in range(LANES):
        better = m[E + lane] < p[BEST_ERROR + lane]
        p[BEST_ERROR + lane] = m[E + lane] if better else p[BEST_ERROR + lane]
        p[BEST_SCALE + lane] = p[SCALE + lane] if better else p[BEST_SCALE + lane]
        p[BEST_OFFSET + lane] = p[OFFSET + lane] if better else p[BEST_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def propose(lanes: Lanes, rules: Rules) -> None:
    """Where the least-squares step leads, if its error (codes held) is the least proposed."""
    p, m, u = lanes.p, lanes.m, lanes.u
    magic = rules.magic
    for lane in range(LANES):
        c1 = m[C1 + lane]
        c2 = m[C2 + lane]
        r0 = m[R0 + lane]
        r1 = m[R1 + lane]
        n = p[MASS + lane]
        finest = u[FINEST + lane]
        limit = u[LIMIT + lane]
        scale = p[SCALE + lane]
        offset = p[OFFSET + lane]
        spread = n * c2 - c1 * c1
        step = (n * r1 - c1 * r0) / spread if spread > TINY else ZERO
        new_scale = rounded(scale + step, magic, finest, limit)
        a = new_scale - scale
        free = offset + (r0 - a * c1) / n
        new_offset = rounded(min(free, rules.ceiling), magic, finest, limit)
        b = new_offset - offset
        bound = rounded(scale + (r1 - b * c1) / max(c2, TINY), magic, finest, limit)
        new_scale = bound if free > rules.ceiling and c2 > TINY else new_scale
        a = new_scale - scale
        error = m[E + lane] + a * (a * c2 - r1 - r1) + b * (b * n - r0 - r0 + TWO * a * c1)
        stay = m[E + lane] < error  # rounding as stored may undo the step's gain
        error = m[E + lane] if stay else error
        new_scale = scale if stay else new_scale
        new_offset = offset if stay else new_offset
        better = error < p[NEXT_ERROR + lane]
        p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
        p[NEXT_SCALE + lane] = new_scale if better else p[NEXT_SCALE + lane]
        p[NEXT_OFFSET + lane] = new_offset if better else p[NEXT_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def propose_zeroed(lanes: Lanes, rules: Rules) -> None:
    """`propose` for levels one of which is 0: the offset follows the scale."""
    p, m, u = lanes.p, lanes.m, lanes.u
    magic = rules.magic
    for lane in range(LANES):
        c1 = m[C1 + lane]
        c2 = m[C2 + lane]
        r0 = m[R0 + lane]
        r1 = m[R1 + lane]
        n = p[MASS + lane]
        finest = u[FINEST + lane]
        limit = u[LIMIT + lane]
        scale = p[SCALE + lane]
        offset = p[OFFSET + lane]
        zero = zero_code(offset, p[INVERSE + lane], rules)
        spread = c2 - zero * (c1 + c1 - zero * n)
        step = (r1 - zero * r0) / spread if spread > TINY else ZERO
        new_scale = rounded(scale + step, magic, finest, limit)
        new_offset = rounded(-new_scale * zero, magic, finest, limit)
        a = new_scale - scale
        b = new_offset - offset
        error = m[E + lane] + a * (a * c2 - r1 - r1) + b * (b * n - r0 - r0 + TWO * a * c1)
        stay = m[E + lane] < error
        error = m[E + lane] if stay else error
        new_scale = scale if stay else new_scale
        new_offset = offset if stay else new_offset
        better = error < p[NEXT_ERROR + lane]
        p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
        p[NEXT_SCALE + lane] = new_scale if better else p[NEXT_SCALE + lane]
        p[NEXT_OFFSET + lane] = new_offset if better else p[NEXT_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def propose_symmetric(lanes: Lanes, rules: Rules) -> None:
    """`propose` for levels whose offset is 0."""
    p, m, u = lanes.p, lanes.m, lanes.u
    for lane in range(LANES):
        c2 = m[C2 + lane]
        r1 = m[R1 + lane]
        scale = p[SCALE + lane]
        step = r1 / c2 if c2 > TINY else ZERO
        new_scale = rounded(scale + step, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        a = new_scale - scale
        error = m[E + lane] + a * (a * c2 - r1 - r1)
        stay = m[E + lane] < error
        error = m[E + lane] if stay else error
        new_scale = scale if stay else new_scale
        better = error < p[NEXT_ERROR + lane]
        p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
        p[NEXT_SCALE + lane] = new_scale if better else p[NEXT_SCALE + lane]


@njit(**INNER, fastmath=STRICT)
def follow(p: Floats) -> None:
    """Make the best proposal the present levels."""
    for lane in range(LANES):
        p[SCALE + lane] = p[NEXT_SCALE + lane]
        p[OFFSET + lane] = p[NEXT_OFFSET + lane]
        p[INVERSE + lane] = inverse(p[NEXT_SCALE + lane])


@njit(**INNER, fastmath=STRICT)
def scan_symmetric(lanes: Lanes, rules: Rules, pair: Pair) -> None:
    """The best proposal of all starts, by a scan of them two at a time."""
    count = rules.starts.shape[0]
    for k in range(0, count, 2):
        start_symmetric(lanes, rules, rules.starts[k, 0])
        take_start(lanes, rules, pair.a)
        start_symmetric(lanes, rules, rules.starts[min(k + 1, count - 1), 0])
        take_start(lanes, rules, pair.b)
        scan(lanes, rules, pair)
    forget_proposal(lanes)


@njit(**INNER, fastmath=STRICT)
def propose_by_kind(lanes: Lanes, rules: Rules) -> None:
    """The proposal of the present levels, by what may be stored."""
    if rules.symmetric:
        propose_symmetric(lanes, rules)
    elif rules.zeroed:
        propose_zeroed(lanes, rules)
    else:
        propose(lanes, rules)


@njit(**INNER, fastmath=STRICT)
def try_starts(lanes: Lanes, rules: Rules) -> None:
    """The best proposal of all starts."""
    aligned = rules.ceiling > ZERO and not rules.symmetric
    for k in range(-1 if aligned else 0, rules.starts.shape[0]):
        if k < 0:
            start_aligned(lanes, rules)
        elif rules.symmetric:
            start_symmetric(lanes, rules, rules.starts[k, 0])
        else:
            start(lanes, rules, rules.starts[k, 0], rules.starts[k, 1])
        accumulate(lanes, rules)
        propose_by_kind(lanes, rules)


@njit(**INNER, fastmath=STRICT)
def refit(lanes: Lanes, rules: Rules) -> None:
    """Follow the best proposal some times, and keep the best levels met."""
    for _ in range(rules.refits):
        follow(lanes.p)
        accumulate(lanes, rules)
        keep(lanes)
        propose_by_kind(lanes, rules)


@njit(**INNER, fastmath=STRICT)
def search_lanes(lanes: Lanes, rules: Rules) -> None:
    """The best levels of every lane: the best proposal of all starts, refitted some times."""
    try_starts(lanes, rules)
    refit(lanes, rules)


@njit(**INNER, fastmath=STRICT)
def set_best(p: Floats) -> None:
    """Make the best levels the present ones, and let any others be better."""
    for lane in range(LANES):
        p[SCALE + lane] = p[BEST_SCALE + lane]
        p[OFFSET + lane] = p[BEST_OFFSET + lane]
        p[INVERSE + lane] = inverse(p[BEST_SCALE + lane])
        p[BEST_ERROR + lane] = FAR


@njit(**INNER, fastmath=STRICT)
def compare_decoded(lanes: Lanes, rules: Rules) -> None:
    """Take the aligned levels where they beat the best ones in the runtime's own arithmetic."""
    set_best(lanes.p)
    accumulate_decoded(lanes, rules)
    keep(lanes)
    start_aligned(lanes, rules)
    accumulate_decoded(lanes, rules)
    keep(lanes)


@njit(cache=True, nogil=True, error_model="numpy", fastmath=STRICT)
def search(
    weights: Floats, importance: Floats, rules: Rules, scales: Floats, offsets: Floats
) -> None:
    """Fill `scales` and `offsets`, one a group, for flat `weights`.

    `importance` covers one row, or is empty for ones.
    """
    size = weights.size // scales.size
    x = np.empty(size * LANES, np.float32)
    w = np.ones(size * LANES, np.float32)
    p = np.zeros(PARAMETERS, np.float32)
    m = np.zeros(MOMENTS, np.float32)
    u = np.zeros(UNITS, np.float32)
    lanes = Lanes(x, w, p, m, u)
    pair = Pair(np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32))
    for first in range(0, scales.size, LANES):
        load(weights, first, lanes, rules)
        if importance.size > 0:
            load_importance(importance, first, w)
        measure(lanes)
        if rules.scanned:
            scan_symmetric(lanes, rules, pair)
            refit(lanes, rules)
        else:
            search_lanes(lanes, rules)
        if rules.decoded:
            compare_decoded(lanes, rules)
        for lane in range(min(LANES, scales.size - first)):
            unit = u[UNIT + lane]
            scales[first + lane] = p[BEST_SCALE + lane] * unit
            offsets[first + lane] = p[BEST_OFFSET + lane] * unit


@dataclass(frozen=True, slots=True)
class Search:
    """How the levels of one format's groups are searched."""

    size: int
    """Weights a group."""
    codes: tuple[int, int]
    """The least and the greatest code."""
    starts: tuple[tuple[float, float], ...]
    """See `start` and `start_symmetric`."""
    refits: int
    """Least-squares refits after the best start."""
    symmetric: bool
    """Whether the offset is 0."""
    zeroed: bool = False
    """Whether 0 must be a level; see the head of this file."""
    decoded: bool = False
    """Whether the runtime rounds product and sum to the type of the parameters."""

    def rules(self, kind: FloatType) -> Rules:
        """For the kernels, with scale and offset stored as `kind`."""
        return Rules(
            np.float32(self.codes[0]),
            np.float32(self.codes[1]),
            self.symmetric,
            self.zeroed,
            FAR,
            np.float32(kind.magic),
            np.float32(kind.smallest_normal),
            np.float32(kind.largest),
            self.decoded,
            np.array(self.starts, np.float32),
            self.refits,
            False,
        )

    @property
    def narrow(self) -> bool:
        """Whether the starts may be scanned: see `scan`."""
        return self.codes[1] - self.codes[0] < NARROW


def search_levels(
    weights: Floats, importance: Floats, plan: Search, kind: FloatType
) -> tuple[Floats, Floats]:
    """Scales and offsets (rows, groups) of `weights`, representable in `kind`."""
    rows, columns = weights.shape
    scale = np.empty((rows, columns // plan.size), np.float32)
    offset = np.empty_like(scale)
    scanned = plan.symmetric and plan.narrow and importance.size == 0
    rules = plan.rules(kind)._replace(scanned=scanned)

    def work(first: int, last: int) -> None:
        search(
            np.ascontiguousarray(weights[first:last], np.float32).reshape(-1),
            importance,
            rules,
            scale[first:last].reshape(-1),
            offset[first:last].reshape(-1),
        )

    in_bands(rows, columns, work)
    return scale, offset
