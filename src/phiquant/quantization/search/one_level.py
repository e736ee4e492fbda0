"""Searched rounding of groups that store their own scale and offset, or scale and zero point.

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

A format with zero points stores the code z of 0 in place of the offset, which is then -s z: a
whole number of scales, so that 0 is always a level. All of this serves both; starts, proposals
and what is written out in the end differ. README.md follows one group through it.

Compared with llama.cpp's make_qx_quants and make_qkx2_quants, which inspired the starts, the
cut at either end and the choice by proposal are new, and parameters are rounded before they are
judged, not after.
"""

from dataclasses import dataclass

import numpy as np

from phiquant.host.kernel import kernel, njit
from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import FloatType
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.lanes import (
    BEST_OFFSET,
    BEST_SCALE,
    FAR,
    INLINED,
    INNER,
    LANES,
    MOMENTS,
    PARAMETERS,
    STRICT,
    UNIT,
    UNITS,
    ZERO,
    Lanes,
    Rules,
    accumulate,
    accumulate_decoded,
    inverse,
    load,
    load_importance,
    measure,
)
from phiquant.quantization.search.proposals import follow, keep, propose_by_kind, restore
from phiquant.quantization.search.scan import NARROW, ROWS, StartPair, scan_starts
from phiquant.quantization.search.starts import start_aligned, start_by_kind


@njit(**INLINED, fastmath=STRICT)
def try_starts(lanes: Lanes, rules: Rules) -> None:
    """Look at every start, so that NEXT holds the best proposal of all."""
    aligned = rules.ceiling > ZERO and not rules.symmetric and not rules.zero_point
    for k in range(-1 if aligned else 0, rules.starts.shape[0]):
        if k < 0:
            start_aligned(lanes, rules)
        else:
            start_by_kind(lanes, rules, k)
        accumulate(lanes, rules)
        propose_by_kind(lanes, rules)


@njit(**INLINED, fastmath=STRICT)
def refit(lanes: Lanes, rules: Rules) -> None:
    """Follow the best proposal `rules.refits` times, and keep the best levels seen."""
    for _ in range(rules.refits):
        follow(lanes.p)
        accumulate(lanes, rules)
        keep(lanes)
        propose_by_kind(lanes, rules)


@njit(**INLINED, fastmath=STRICT)
def search_lanes(lanes: Lanes, rules: Rules) -> None:
    """Search the best levels of every lane: try all starts, then refit the best proposal."""
    try_starts(lanes, rules)
    refit(lanes, rules)


@njit(**INNER, fastmath=STRICT)
def compare_decoded(lanes: Lanes, rules: Rules) -> None:
    """Take the aligned levels where they beat the best ones in the runtime's own arithmetic."""
    restore(lanes.p)
    accumulate_decoded(lanes, rules)
    keep(lanes)
    start_aligned(lanes, rules)
    accumulate_decoded(lanes, rules)
    keep(lanes)


@kernel(error_model="numpy", fastmath=STRICT)
def search(
    weights: Floats, importance: Floats, rules: Rules, scales: Floats, offsets: Floats
) -> None:
    """Fill `scales` and `offsets`, one a group, for flat `weights`.

    `importance` covers one row, or is empty for ones. With `rules.zero_point`, `offsets` are zero
    points.
    """
    size = weights.size // scales.size
    x = np.empty(size * LANES, np.float32)
    w = np.ones(size * LANES, np.float32)
    p = np.zeros(PARAMETERS, np.float32)
    m = np.zeros(MOMENTS, np.float32)
    u = np.zeros(UNITS, np.float32)
    lanes = Lanes(x, w, p, m, u)
    pair = StartPair(np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32))
    for first in range(0, scales.size, LANES):
        load(weights, first, lanes, rules)
        if importance.size > 0:
            load_importance(importance, first, w)
        measure(lanes)
        if rules.scanned:
            scan_starts(lanes, rules, pair)
            refit(lanes, rules)
        else:
            search_lanes(lanes, rules)
        if rules.decoded:
            compare_decoded(lanes, rules)
        for lane in range(min(LANES, scales.size - first)):
            scale = p[BEST_SCALE + lane]
            offset = p[BEST_OFFSET + lane]
            scales[first + lane] = scale * u[UNIT + lane]
            zero = min(max(np.rint(-offset * inverse(scale)), ZERO), rules.high)
            offsets[first + lane] = zero if rules.zero_point else offset * u[UNIT + lane]


@dataclass(frozen=True, slots=True)
class Search:
    """What the search for one format's levels needs to know."""

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

    def rules(self, kind: FloatType, *, zero_point: bool = False, alike: bool = False) -> Rules:
        """The rules that the kernels take, with scale and offset stored as `kind`.

        With `zero_point`, that is stored in place of the offset. `alike` says that all weights
        are of one importance; the starts are then scanned where `scan` can tell them apart.
        """
        narrow = self.codes[1] - self.codes[0] < NARROW
        return Rules(
            np.float32(self.codes[0]),
            np.float32(self.codes[1]),
            self.symmetric,
            self.zeroed,
            zero_point,
            FAR,
            np.float32(kind.magic),
            np.float32(kind.smallest_normal),
            np.float32(kind.largest),
            self.decoded,
            np.array(self.starts, np.float32),
            self.refits,
            alike and narrow and (self.symmetric or zero_point),
        )


def search_levels(
    weights: Floats, importance: Floats, plan: Search, kind: FloatType
) -> tuple[Floats, Floats]:
    """Scales and offsets (rows, groups) of `weights` (rows, columns), representable in `kind`.

    `importance` is (columns,), or empty for ones.
    """
    return _search_rows(weights, importance, plan.rules(kind, alike=not importance.size), plan.size)


def search_zero_points(
    weights: Floats, importance: Floats, plan: Search, kind: FloatType
) -> tuple[Floats, Floats]:
    """Scales and zero points (rows, groups) of `weights`; codes are 0 to `plan.codes[1]`.

    A weight decodes to scale * (code - zero point); scales are representable in `kind`.
    """
    rules = plan.rules(kind, zero_point=True, alike=not importance.size)
    return _search_rows(weights, importance, rules, plan.size)


def _search_rows(
    weights: Floats, importance: Floats, rules: Rules, size: int
) -> tuple[Floats, Floats]:
    """Run `search` over bands of rows; its two results, (rows, groups) each."""
    rows, columns = weights.shape
    scales = np.empty((rows, columns // size), np.float32)
    offsets = np.empty_like(scales)

    def work(first: int, last: int) -> None:
        search(
            np.ascontiguousarray(weights[first:last], np.float32).reshape(-1),
            importance,
            rules,
            scales[first:last].reshape(-1),
            offsets[first:last].reshape(-1),
        )

    in_bands(rows, columns, work)
    return scales, offsets
