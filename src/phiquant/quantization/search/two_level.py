"""Searched rounding of super-blocks, whose groups' scales and minima are small integers.

1. Each group's levels are searched freely (`search_lanes`), the offset at most 0.
2. Units are chosen from a table of divisors of the greatest scale and offset, by the bound
   E + a² C2 + 2 a b C1 + b² N of the error when the free levels are rounded to them (a, b).
3. Each group tries the integers around its free levels and keeps what errs least, as stored.
4. Units are refitted by least squares with integers and codes held, and 3 is done again.

A super-block with groups that lie above 0 is searched mirrored, as offsets are at most 0; both
units are then negative, which the formats allow.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from phiquant.host.kernel import kernel, njit
from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import FloatType
from phiquant.quantization.grid import Codes, Floats
from phiquant.quantization.search.lanes import (
    BEST_ERROR,
    BEST_MINIMUM,
    BEST_OFFSET,
    BEST_SCALE,
    BEST_SUB,
    C1,
    FAR,
    IDEAL_OFFSET,
    IDEAL_SCALE,
    INLINED,
    INVERSE,
    KEPT_MINIMUM,
    KEPT_SUB,
    LANES,
    MASS,
    MINIMUM,
    MOMENTS,
    OFFSET,
    PARAMETERS,
    SCALE,
    STRICT,
    SUB,
    UNIT,
    ZERO,
    Lanes,
    Real,
    Rules,
    accumulate,
    inverse,
    load,
    load_importance,
    measure,
)
from phiquant.quantization.search.one_level import Search, search_lanes
from phiquant.quantization.search.proposals import keep_pair
from phiquant.quantization.search.supers import (
    KEPT_SUPER,
    KEPT_SUPER_MINIMUM,
    KEPT_TOTAL,
    SUPER,
    SUPER_MINIMUM,
    SUPERS,
    TOTAL,
    SuperLanes,
    SuperRules,
    choose_units,
    group_lanes,
    group_moments,
    keep_super,
    mirror,
    refit_super,
    set_ideal,
)


class SuperLevels(NamedTuple):
    """What is stored, flat: an integer scale and minimum a group, two units a super-block."""

    subs: Codes
    minima: Codes
    units: Floats
    minimum_units: Floats


@njit(**INLINED, fastmath=STRICT)
def choose_sub(group: Lanes, ideal: Floats, rules: SuperRules, delta: Real) -> None:
    """Set the integer scale nearest to the ideal, moved by `delta`, and the minimum for it."""
    p, q = group.p, group.u
    low, high, most = rules.low, rules.high, rules.most
    for lane in range(LANES):
        unit = q[SUPER + lane]
        minimum_unit = q[SUPER_MINIMUM + lane]
        best = p[IDEAL_SCALE + lane]
        sub = min(max(np.rint(best * inverse(unit)) + delta, low), high)
        scale = sub * unit
        offset = p[IDEAL_OFFSET + lane] - (scale - best) * ideal[C1 + lane] / p[MASS + lane]
        minimum = min(max(np.rint(-offset * inverse(minimum_unit)), ZERO), most)
        p[SUB + lane] = sub
        p[MINIMUM + lane] = minimum
        p[SCALE + lane] = scale
        p[OFFSET + lane] = -minimum * minimum_unit
        p[INVERSE + lane] = inverse(scale)


@njit(**INLINED, fastmath=STRICT)
def keep_sub(group: Lanes) -> None:
    """Remember the present integers of the lanes where they are the best so far."""
    keep_pair(group, (SUB, BEST_SUB), (MINIMUM, BEST_MINIMUM))


@njit(**INLINED, fastmath=STRICT)
def restore_sub(group: Lanes, rules: SuperRules, shift: Real) -> None:
    """Make the best integers the present ones, with the minimum moved by `shift`."""
    p, q = group.p, group.u
    for lane in range(LANES):
        sub = p[BEST_SUB + lane]
        minimum = min(max(p[BEST_MINIMUM + lane] + shift, ZERO), rules.most)
        scale = sub * q[SUPER + lane]
        p[SUB + lane] = sub
        p[MINIMUM + lane] = minimum
        p[SCALE + lane] = scale
        p[OFFSET + lane] = -minimum * q[SUPER_MINIMUM + lane]
        p[INVERSE + lane] = inverse(scale)


@njit(**INLINED, fastmath=STRICT)
def choose_group(group: Lanes, ideal: Floats, rules: Rules, supers: SuperRules) -> None:
    """Find the best integers of a group on the present units, and add its error to TOTAL.

    `ideal` holds the moments of the ideal levels.
    """
    p, q = group.p, group.u
    for lane in range(LANES):
        p[BEST_ERROR + lane] = FAR
    for delta in range(-1, 2):
        choose_sub(group, ideal, supers, np.float32(delta))
        accumulate(group, rules)
        keep_sub(group)
    if not rules.symmetric:
        for shift in range(-1, 2, 2):
            restore_sub(group, supers, np.float32(shift))
            accumulate(group, rules)
            keep_sub(group)
    restore_sub(group, supers, ZERO)
    for lane in range(LANES):
        q[TOTAL + lane] += p[BEST_ERROR + lane]


@njit(**INLINED, fastmath=STRICT)
def settle(lanes: SuperLanes, rules: Rules, supers: SuperRules) -> None:
    """Go from the groups' free levels to integers and units, and keep the best of all rounds."""
    p, q = lanes.p, lanes.q
    groups = p.size // PARAMETERS
    for lane in range(LANES):
        q[KEPT_TOTAL + lane] = FAR
    for turn in range(supers.rounds):
        for k in range(groups):
            accumulate(group_lanes(lanes, k, group_moments(lanes, k)), rules)
        if turn > 0:
            refit_super(lanes, rules, supers)
        for k in range(groups):
            group = p[k * PARAMETERS : (k + 1) * PARAMETERS]
            set_ideal(group, group_moments(lanes, k), rules.symmetric)
        if turn == 0:
            choose_units(lanes, supers)
        for lane in range(LANES):
            q[TOTAL + lane] = ZERO
        for k in range(groups):
            group = group_lanes(lanes, k, lanes.trial)
            choose_group(group, group_moments(lanes, k), rules, supers)
        keep_super(p, q)


@njit(**INLINED, fastmath=STRICT)
def search_groups(lanes: SuperLanes, rules: Rules, symmetric: bool) -> None:
    """Search the free levels of every group, and make them the present ones."""
    groups = lanes.p.size // PARAMETERS
    for k in range(groups):
        measure(group_lanes(lanes, k, lanes.trial))
    if not symmetric:
        mirror(lanes)
    for k in range(groups):
        group = group_lanes(lanes, k, lanes.trial)
        search_lanes(group, rules)
        p = group.p
        for lane in range(LANES):
            p[SCALE + lane] = p[BEST_SCALE + lane]
            p[OFFSET + lane] = p[BEST_OFFSET + lane]
            p[INVERSE + lane] = inverse(p[BEST_SCALE + lane])


@njit(**INLINED, fastmath=STRICT)
def store(lanes: SuperLanes, first: int, stored: SuperLevels) -> None:
    """Copy the kept levels to those of the super-blocks from `first` on."""
    p, q = lanes.p, lanes.q
    groups = p.size // PARAMETERS
    for lane in range(min(LANES, stored.units.size - first)):
        unit = q[UNIT + lane]
        stored.units[first + lane] = q[KEPT_SUPER + lane] * unit
        stored.minimum_units[first + lane] = q[KEPT_SUPER_MINIMUM + lane] * unit
        for k in range(groups):
            at = (first + lane) * groups + k
            stored.subs[at] = np.int16(p[k * PARAMETERS + KEPT_SUB + lane])
            stored.minima[at] = np.int16(p[k * PARAMETERS + KEPT_MINIMUM + lane])


@kernel(error_model="numpy", fastmath=STRICT)
def search_two_level(
    weights: Floats, importance: Floats, rules: Rules, supers: SuperRules, stored: SuperLevels
) -> None:
    """Fill `stored` for flat `weights`; `importance` covers one row, or is empty for ones."""
    size = weights.size // stored.units.size
    groups = stored.subs.size // stored.units.size
    x = np.empty(size * LANES, np.float32)
    w = np.ones(size * LANES, np.float32)
    p = np.zeros(groups * PARAMETERS, np.float32)
    m = np.zeros(groups * MOMENTS, np.float32)
    trial = np.zeros(MOMENTS, np.float32)
    q = np.zeros(SUPERS, np.float32)
    pairs = np.zeros(supers.divisors.shape[0] * 5 * LANES, np.float32)
    lanes = SuperLanes(x, w, p, m, trial, q, pairs)
    for first in range(0, stored.units.size, LANES):
        load(weights, first, Lanes(x, w, p, trial, q), rules)
        if importance.size > 0:
            load_importance(importance, first, w)
        search_groups(lanes, rules, rules.symmetric)
        settle(lanes, rules, supers)
        store(lanes, first, stored)


@dataclass(frozen=True, slots=True)
class SuperSearch:
    """What the search for one format's super-blocks needs to know."""

    groups: Search
    """How a group's free levels are searched."""
    span: int
    """Groups a super-block."""
    subs: tuple[int, int]
    """The least and the greatest integer scale."""
    most: int
    """The greatest integer minimum."""
    divisors: tuple[tuple[float, float], ...]
    """The divisors of the extreme scale and offset that give the units to try."""
    rounds: int = 2
    """Rounds of choosing integers and refitting units."""

    def rules(self, kind: FloatType) -> tuple[Rules, SuperRules]:
        """The rules that the kernels take, with units stored as `kind`, groups' levels free."""
        free = self.groups.rules(kind)._replace(ceiling=ZERO, magic=ZERO)
        supers = SuperRules(
            np.float32(self.subs[0]),
            np.float32(self.subs[1]),
            np.float32(self.most),
            np.float32(kind.magic),
            np.array(self.divisors, np.float32),
            self.rounds,
        )
        return free, supers


def search_super_levels(
    weights: Floats, importance: Floats, plan: SuperSearch, kind: FloatType
) -> SuperLevels:
    """Integer scales and minima (rows, groups), and their units (rows, super-blocks)."""
    rows, columns = weights.shape
    groups = columns // plan.groups.size
    stored = SuperLevels(
        np.empty((rows, groups), np.int16),
        np.empty((rows, groups), np.int16),
        np.empty((rows, groups // plan.span), np.float32),
        np.empty((rows, groups // plan.span), np.float32),
    )
    free, supers = plan.rules(kind)

    def work(first: int, last: int) -> None:
        search_two_level(
            np.ascontiguousarray(weights[first:last], np.float32).reshape(-1),
            importance,
            free,
            supers,
            SuperLevels(
                stored.subs[first:last].reshape(-1),
                stored.minima[first:last].reshape(-1),
                stored.units[first:last].reshape(-1),
                stored.minimum_units[first:last].reshape(-1),
            ),
        )

    in_bands(rows, columns, work)
    return stored
