"""The least-squares steps of a search, a lane a group, and what is best so far.

With codes held the squared error is a parabola in scale and offset. Its minimum, rounded as the
format stores it, has an error that is known without a second pass: what `lanes.accumulate` left
in the moments is all that it takes.
"""

import numpy as np

from phiquant.host.kernel import njit
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.lanes import (
    BEST_ERROR,
    BEST_OFFSET,
    BEST_SCALE,
    C1,
    C2,
    FAR,
    FINEST,
    INLINED,
    INNER,
    INVERSE,
    LANES,
    LIMIT,
    MASS,
    NEXT_ERROR,
    NEXT_OFFSET,
    NEXT_SCALE,
    OFFSET,
    R0,
    R1,
    SCALE,
    STRICT,
    TINY,
    TWO,
    ZERO,
    E,
    Lanes,
    Real,
    Rules,
    inverse,
    rounded,
)
from phiquant.quantization.search.starts import zero_code


@njit(**INLINED, fastmath=STRICT)
def keep(lanes: Lanes) -> None:
    """Remember the present levels of the lanes where they are the best so far."""
    keep_pair(lanes, (SCALE, BEST_SCALE), (OFFSET, BEST_OFFSET))


@njit(**INLINED, fastmath=STRICT)
def keep_pair(lanes: Lanes, first: tuple[int, int], second: tuple[int, int]) -> None:
    """Where the present error is the best so far, remember it and two present parameters.

    `first` and `second` are the rows of the present parameter and of the best one.
    """
    p, m = lanes.p, lanes.m
    for lane in range(LANES):
        better = m[E + lane] < p[BEST_ERROR + lane]
        p[BEST_ERROR + lane] = m[E + lane] if better else p[BEST_ERROR + lane]
        for present, best in (first, second):
            p[best + lane] = p[present + lane] if better else p[best + lane]


@njit(**INLINED, fastmath=STRICT)
def offer(lanes: Lanes, lane: int, error: Real, scale: Real, offset: Real) -> None:
    """Propose levels for a lane, if their `error` with the codes held is the least proposed.

    Rounding as stored may undo what the step gained: then the present levels are proposed.
    """
    p, m = lanes.p, lanes.m
    stay = m[E + lane] < error
    error = m[E + lane] if stay else error
    scale = p[SCALE + lane] if stay else scale
    offset = p[OFFSET + lane] if stay else offset
    better = error < p[NEXT_ERROR + lane]
    p[NEXT_ERROR + lane] = error if better else p[NEXT_ERROR + lane]
    p[NEXT_SCALE + lane] = scale if better else p[NEXT_SCALE + lane]
    p[NEXT_OFFSET + lane] = offset if better else p[NEXT_OFFSET + lane]


@njit(**INNER, fastmath=STRICT)
def propose(lanes: Lanes, rules: Rules) -> None:
    """Propose the levels to which the least-squares step leads."""
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
        offer(lanes, lane, error, new_scale, new_offset)


@njit(**INNER, fastmath=STRICT)
def propose_zeroed(lanes: Lanes, rules: Rules) -> None:
    """`propose` where 0 must be a level: the offset follows the scale."""
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
        offer(lanes, lane, error, new_scale, new_offset)


@njit(**INNER, fastmath=STRICT)
def propose_symmetric(lanes: Lanes, rules: Rules) -> None:
    """`propose` where the offset is 0."""
    p, m, u = lanes.p, lanes.m, lanes.u
    for lane in range(LANES):
        c2 = m[C2 + lane]
        r1 = m[R1 + lane]
        scale = p[SCALE + lane]
        step = r1 / c2 if c2 > TINY else ZERO
        new_scale = rounded(scale + step, rules.magic, u[FINEST + lane], u[LIMIT + lane])
        a = new_scale - scale
        error = m[E + lane] + a * (a * c2 - r1 - r1)
        offer(lanes, lane, error, new_scale, ZERO)


@njit(**INNER, fastmath=STRICT)
def propose_zero_point(lanes: Lanes, rules: Rules) -> None:
    """`propose` for a zero point z, which is held with the codes q.

    The offset is -s z, and the squared error is then least for the scale

        s + Σ w e (q - z) / Σ w (q - z)²

    whose sums follow from the moments: Σ w e (q - z) = R1 - z R0 and Σ w (q - z)² =
    C2 - 2 z C1 + z² N.
    """
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
        offer(lanes, lane, error, new_scale, -new_scale * zero)


@njit(**INLINED, fastmath=STRICT)
def propose_by_kind(lanes: Lanes, rules: Rules) -> None:
    """Propose from the present levels, by what the format stores."""
    if rules.symmetric:
        propose_symmetric(lanes, rules)
    elif rules.zero_point:
        propose_zero_point(lanes, rules)
    elif rules.zeroed:
        propose_zeroed(lanes, rules)
    else:
        propose(lanes, rules)


@njit(**INLINED, fastmath=STRICT)
def follow(p: Floats) -> None:
    """Make the best proposal the present levels."""
    for lane in range(LANES):
        p[SCALE + lane] = p[NEXT_SCALE + lane]
        p[OFFSET + lane] = p[NEXT_OFFSET + lane]
        p[INVERSE + lane] = inverse(p[NEXT_SCALE + lane])


@njit(**INNER, fastmath=STRICT)
def restore(p: Floats) -> None:
    """Make the best levels the present ones, and forget their error: the next look sets it."""
    for lane in range(LANES):
        p[SCALE + lane] = p[BEST_SCALE + lane]
        p[OFFSET + lane] = p[BEST_OFFSET + lane]
        p[INVERSE + lane] = inverse(p[BEST_SCALE + lane])
        p[BEST_ERROR + lane] = FAR
