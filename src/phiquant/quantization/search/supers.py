"""Super-blocks side by side: groups whose scale and offset are small integers times units.

A weight decodes to `unit * sub * code - minimum_unit * minimum`: `sub` and `minimum` are the
group's integers, the units are the super-block's own floats. Here a lane holds a super-block
and its groups are slabs of lanes one after another, so that what is shared by the groups of a
super-block is again one vector operation for all lanes. This file chooses the units;
`two_level.py` chooses the integers and holds the whole search.
"""

from typing import NamedTuple

import numpy as np

from phiquant.host.kernel import njit
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.lanes import (
    BEST_MINIMUM,
    BEST_SUB,
    C1,
    C2,
    FAR,
    FINEST,
    GREATEST,
    IDEAL_OFFSET,
    IDEAL_SCALE,
    INLINED,
    KEPT_MINIMUM,
    KEPT_SUB,
    LANES,
    LEAST,
    LIMIT,
    MASS,
    MINIMUM,
    MOMENTS,
    OFFSET,
    ONE,
    PARAMETERS,
    R0,
    R1,
    SCALE,
    STRICT,
    SUB,
    TINY,
    TWO,
    UNIT,
    UNITS,
    ZERO,
    E,
    Lanes,
    Real,
    Rules,
    inverse,
    rounded,
)

# Rows of the array of super-blocks, which follow those of the units (UNIT, FINEST, LIMIT).
SUPER = UNITS + 0 * LANES
SUPER_MINIMUM = UNITS + 1 * LANES
EXTREME = UNITS + 2 * LANES  # the scale of greatest magnitude among the groups
LOWEST = UNITS + 3 * LANES  # minus the lowest offset
TOTAL = UNITS + 4 * LANES  # the error of all groups
BEST_TOTAL = UNITS + 5 * LANES
KEPT_SUPER = UNITS + 6 * LANES
KEPT_SUPER_MINIMUM = UNITS + 7 * LANES
KEPT_TOTAL = UNITS + 8 * LANES
NORMAL = UNITS + 9 * LANES  # the normal equations of the units
SUPERS = UNITS + 14 * LANES

DEGENERATE = np.float32(1e-6)


class SuperLanes(NamedTuple):
    """LANES super-blocks at work: flat float32 arrays, the groups one after another."""

    x: Floats
    """Weights, (groups, size, LANES)."""
    w: Floats
    """Their importance, alike."""
    p: Floats
    """Levels of the groups, PARAMETERS each."""
    m: Floats
    """Moments of the groups at their ideal levels, MOMENTS each."""
    trial: Floats
    """Moments of one group at other levels."""
    q: Floats
    """Super-blocks: the rows from UNIT to SUPERS."""
    pairs: Floats
    """Pairs of units under trial, five rows of lanes each: see `choose_units`."""


class SuperRules(NamedTuple):
    """What holds for all super-blocks of a tensor, beside the `Rules` of its groups."""

    low: Real
    """The least integer scale."""
    high: Real
    """The greatest integer scale."""
    most: Real
    """The greatest integer minimum; 0 where there are no minima."""
    magic: Real
    """`FloatType.magic` of the stored units."""
    divisors: Floats
    """(pairs, 2): what to divide the extreme scale and offset by for units to try."""
    rounds: int
    """Rounds of choosing integers."""


@njit(**INLINED, fastmath=STRICT)
def group_lanes(lanes: SuperLanes, k: int, moments: Floats) -> Lanes:
    """Group `k` of every super-block, with room for its moments."""
    groups = lanes.p.size // PARAMETERS
    size = lanes.x.size // groups
    return Lanes(
        lanes.x[k * size : (k + 1) * size],
        lanes.w[k * size : (k + 1) * size],
        lanes.p[k * PARAMETERS : (k + 1) * PARAMETERS],
        moments,
        lanes.q,
    )


@njit(**INLINED, fastmath=STRICT)
def group_moments(lanes: SuperLanes, k: int) -> Floats:
    """The moments of group `k` at its ideal levels."""
    return lanes.m[k * MOMENTS : (k + 1) * MOMENTS]


@njit(**INLINED, fastmath=STRICT)
def mirror(lanes: SuperLanes) -> None:
    """Negate the super-blocks with a group that lies further above 0 than any lies below."""
    x, p, q = lanes.x, lanes.p, lanes.q
    groups = p.size // PARAMETERS
    for lane in range(LANES):
        above = ZERO
        below = ZERO
        for k in range(groups):
            above = max(above, p[k * PARAMETERS + LEAST + lane])
            below = max(below, -p[k * PARAMETERS + GREATEST + lane])
        if above > below:
            q[UNIT + lane] = -q[UNIT + lane]
            for j in range(x.size // LANES):
                x[j * LANES + lane] = -x[j * LANES + lane]
            for k in range(groups):
                at = k * PARAMETERS + lane
                least = p[at + LEAST]
                p[at + LEAST] = -p[at + GREATEST]
                p[at + GREATEST] = -least


@njit(**INLINED, fastmath=STRICT)
def set_ideal(p: Floats, m: Floats, symmetric: bool) -> None:
    """Set the ideal levels: the least-squares ones for the codes behind `m`, not rounded.

    Afterwards E in `m` is their error, so that levels (a, b) away from them have the error
    E + a² C2 + 2 a b C1 + b² N or less.
    """
    for lane in range(LANES):
        c1 = ZERO if symmetric else m[C1 + lane]
        c2 = m[C2 + lane]
        r0 = ZERO if symmetric else m[R0 + lane]
        r1 = m[R1 + lane]
        n = p[MASS + lane]
        offset = p[OFFSET + lane]
        spread = n * c2 - c1 * c1
        a = (n * r1 - c1 * r0) / spread if spread > TINY else ZERO
        b = (r0 - a * c1) / n
        capped = offset + b > ZERO
        b = -offset if capped else b
        a = (r1 - b * c1) / c2 if capped and c2 > TINY else a
        p[IDEAL_SCALE + lane] = p[SCALE + lane] + a
        p[IDEAL_OFFSET + lane] = offset + b
        m[E + lane] += a * (a * c2 - r1 - r1) + b * (b * n - r0 - r0 + TWO * a * c1)


@njit(**INLINED, fastmath=STRICT)
def find_extremes(p: Floats, q: Floats) -> None:
    """Set EXTREME and LOWEST of every super-block from its groups."""
    for lane in range(LANES):
        q[EXTREME + lane] = ZERO
        q[LOWEST + lane] = ZERO
    for k in range(p.size // PARAMETERS):
        group = p[k * PARAMETERS : (k + 1) * PARAMETERS]
        for lane in range(LANES):
            scale = group[IDEAL_SCALE + lane]
            extreme = q[EXTREME + lane]
            q[EXTREME + lane] = scale if abs(scale) > abs(extreme) else extreme
            q[LOWEST + lane] = max(q[LOWEST + lane], -group[IDEAL_OFFSET + lane])


@njit(**INLINED, fastmath=STRICT)
def add_bound(p: Floats, m: Floats, pair: Floats, rules: SuperRules) -> None:
    """Add to the total of `pair` the bound of a group's error on its units: see `choose_units`."""
    low, high, most = rules.low, rules.high, rules.most
    for lane in range(LANES):
        unit = pair[lane]
        minimum_unit = pair[LANES + lane]
        ideal = p[IDEAL_SCALE + lane]
        ideal_offset = p[IDEAL_OFFSET + lane]
        c1 = m[C1 + lane]
        n = p[MASS + lane]
        a = min(max(np.rint(ideal * pair[2 * LANES + lane]), low), high) * unit - ideal
        b = a * c1 / n  # minus what the offset should move by
        minimum = np.rint((b - ideal_offset) * pair[3 * LANES + lane])
        b = -min(max(minimum, ZERO), most) * minimum_unit - ideal_offset
        b = b if most > ZERO else ZERO
        c1 = c1 if most > ZERO else ZERO
        pair[4 * LANES + lane] += m[E + lane] + a * (a * m[C2 + lane] + TWO * b * c1) + b * b * n


@njit(**INLINED, fastmath=STRICT)
def add_bounds(p: Floats, m: Floats, pairs: Floats, rules: SuperRules) -> None:
    """`add_bound` for every pair of units."""
    for i in range(pairs.size // (5 * LANES)):
        add_bound(p, m, pairs[i * 5 * LANES : (i + 1) * 5 * LANES], rules)


@njit(**INLINED, fastmath=STRICT)
def choose_units(lanes: SuperLanes, rules: SuperRules) -> None:
    """Set SUPER and SUPER_MINIMUM to the units with the least bound over the divisors.

    A pair holds, in turn, the two units, their inverses and the total of the bounds.
    """
    p, q, pairs = lanes.p, lanes.q, lanes.pairs
    divisors = rules.divisors
    magic = rules.magic
    find_extremes(p, q)
    count = divisors.shape[0]
    for i in range(count):
        here = pairs[i * 5 * LANES : (i + 1) * 5 * LANES]
        divisor = ONE / divisors[i, 0]
        other = ONE / divisors[i, 1]
        for lane in range(LANES):
            finest = q[FINEST + lane]
            limit = q[LIMIT + lane]
            unit = rounded(q[EXTREME + lane] * divisor, magic, finest, limit)
            minimum_unit = rounded(q[LOWEST + lane] * other, magic, finest, limit)
            here[lane] = unit
            here[LANES + lane] = minimum_unit
            here[2 * LANES + lane] = inverse(unit)
            here[3 * LANES + lane] = inverse(minimum_unit)
            here[4 * LANES + lane] = ZERO
    for k in range(p.size // PARAMETERS):
        group = p[k * PARAMETERS : (k + 1) * PARAMETERS]
        add_bounds(group, group_moments(lanes, k), pairs, rules)
    for lane in range(LANES):
        q[BEST_TOTAL + lane] = FAR
    for i in range(count):
        here = pairs[i * 5 * LANES : (i + 1) * 5 * LANES]
        for lane in range(LANES):
            better = here[4 * LANES + lane] < q[BEST_TOTAL + lane]
            q[BEST_TOTAL + lane] = here[4 * LANES + lane] if better else q[BEST_TOTAL + lane]
            q[SUPER + lane] = here[lane] if better else q[SUPER + lane]
            q[SUPER_MINIMUM + lane] = here[LANES + lane] if better else q[SUPER_MINIMUM + lane]


@njit(**INLINED, fastmath=STRICT)
def refit_super(lanes: SuperLanes, rules: Rules, supers: SuperRules) -> None:
    """Take the least-squares step in both units, integers and codes held; round as stored."""
    p, q = lanes.p, lanes.q
    symmetric = rules.symmetric
    magic = supers.magic
    for i in range(5 * LANES):
        q[NORMAL + i] = ZERO
    for k in range(p.size // PARAMETERS):
        group = p[k * PARAMETERS : (k + 1) * PARAMETERS]
        moments = group_moments(lanes, k)
        for lane in range(LANES):
            sub = group[SUB + lane]
            minimum = group[MINIMUM + lane]
            q[NORMAL + lane] += sub * sub * moments[C2 + lane]
            q[NORMAL + LANES + lane] -= sub * minimum * moments[C1 + lane]
            q[NORMAL + 2 * LANES + lane] += minimum * minimum * group[MASS + lane]
            q[NORMAL + 3 * LANES + lane] += sub * moments[R1 + lane]
            q[NORMAL + 4 * LANES + lane] -= minimum * moments[R0 + lane]
    for lane in range(LANES):
        ss = q[NORMAL + lane]
        sm = q[NORMAL + LANES + lane]
        mm = q[NORMAL + 2 * LANES + lane]
        s1 = q[NORMAL + 3 * LANES + lane]
        m0 = q[NORMAL + 4 * LANES + lane]
        spread = ss * mm - sm * sm
        both = not symmetric and spread > DEGENERATE * ss * mm + TINY
        a = (mm * s1 - sm * m0) / spread if both else (s1 / ss if ss > TINY else ZERO)
        b = (ss * m0 - sm * s1) / spread if both else ZERO
        finest = q[FINEST + lane]
        limit = q[LIMIT + lane]
        q[SUPER + lane] = rounded(q[SUPER + lane] + a, magic, finest, limit)
        q[SUPER_MINIMUM + lane] = rounded(q[SUPER_MINIMUM + lane] + b, magic, finest, limit)


@njit(**INLINED, fastmath=STRICT)
def keep_super(p: Floats, q: Floats) -> None:
    """Remember the best integers and units of the super-blocks that have become better."""
    for k in range(p.size // PARAMETERS):
        group = p[k * PARAMETERS : (k + 1) * PARAMETERS]
        for lane in range(LANES):
            better = q[TOTAL + lane] < q[KEPT_TOTAL + lane]
            group[KEPT_SUB + lane] = group[BEST_SUB + lane] if better else group[KEPT_SUB + lane]
            group[KEPT_MINIMUM + lane] = (
                group[BEST_MINIMUM + lane] if better else group[KEPT_MINIMUM + lane]
            )
    for lane in range(LANES):
        better = q[TOTAL + lane] < q[KEPT_TOTAL + lane]
        q[KEPT_TOTAL + lane] = q[TOTAL + lane] if better else q[KEPT_TOTAL + lane]
        q[KEPT_SUPER + lane] = q[SUPER + lane] if better else q[KEPT_SUPER + lane]
        q[KEPT_SUPER_MINIMUM + lane] = (
            q[SUPER_MINIMUM + lane] if better else q[KEPT_SUPER_MINIMUM + lane]
        )
