"""Groups side by side: the vector layout in which levels are searched, and its inner pass.

A searched rounding visits each weight dozens of times, so the visit is what must be fast. Here
32 groups are transposed so that every SIMD lane holds one group: `x[j * LANES + lane]` is weight
j of the lane's group. All that is done to one group is then done to all lanes at once, without
horizontal sums and without branches, and one pass costs about a tenth of a nanosecond a weight
on AVX-512. The price is that a group's variables are rows of an array, not names.

Each lane is multiplied by a power of two that brings its greatest magnitude to [1, 2), so that
nothing overflows or underflows between the least and the greatest float32; stored parameters are
still rounded as at their true magnitude (see `rounded`).

The pass gathers, for codes q = clip(rint((x - offset) / scale)), the weighted residual moments

    C1 = Σ w q    C2 = Σ w q²    R0 = Σ w e    R1 = Σ w q e    E = Σ w e²

of the residuals e = x - offset - scale q,
from which both the error of these levels and the least-squares step to better ones follow:
moving by (a, b) in (scale, offset) with the codes held changes the error to
E - 2 a R1 - 2 b R0 + a² C2 + 2 a b C1 + b² N. Residual moments, unlike raw ones, do not cancel.
"""

from typing import NamedTuple

import numpy as np

from phiquant.host.kernel import kernel, njit
from phiquant.quantization.floats import bits_float, float_bits
from phiquant.quantization.grid import Floats
from phiquant.quantization.search.transposition import SIDE, transpose_block

LANES = 32
TILE = 8
"""Weights of a group that one unrolled step takes; every group is a multiple of it."""
STEP = TILE * LANES
"""Weights of a tile of all lanes."""

STRICT = {"contract", "nsz", "nnan"}
"""Liberties that compilers may take: fused multiply-add; never another order of a sum."""

INNER = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
"""For kernels that only kernels call: they are compiled and cached with their callers."""

INLINED = {**INNER, "forceinline": True}
"""For steps of a search. A call hands over every array with its sizes, which would take about as
long as the step's own work on a group of 32 weights; so these become part of their caller."""

EXACT = {"nsz", "nnan"}
"""For arithmetic that must be the runtime's to the bit: no fused multiply-add either."""

# Rows of the parameter array: where row r of lane l lies is r + l.
INVERSE = 0 * LANES  # 1 / scale, 0 where the scale is 0
SCALE = 1 * LANES
OFFSET = 2 * LANES
BEST_SCALE = 3 * LANES
BEST_OFFSET = 4 * LANES
BEST_ERROR = 5 * LANES
LEAST = 6 * LANES
GREATEST = 7 * LANES
MASS = 8 * LANES  # N = Σ w
NEXT_SCALE = 9 * LANES
NEXT_OFFSET = 10 * LANES
NEXT_ERROR = 11 * LANES
# Two levels only: the group's integer scale and minimum, its best ones, those of the best units,
# and the least-squares levels for the codes of the moments kept beside.
SUB = 12 * LANES
MINIMUM = 13 * LANES
BEST_SUB = 14 * LANES
BEST_MINIMUM = 15 * LANES
KEPT_SUB = 16 * LANES
KEPT_MINIMUM = 17 * LANES
IDEAL_SCALE = 18 * LANES
IDEAL_OFFSET = 19 * LANES
PARAMETERS = 20 * LANES

# Rows of the array of units: what holds for a lane whatever its levels.
UNIT = 0 * LANES  # what one lane unit is: a power of two, negative where the lane is mirrored
FINEST = 1 * LANES  # the smallest normal of the stored type, in lane units
LIMIT = 2 * LANES  # the largest value of the stored type, in lane units
SHRINK = 3 * LANES  # 1 / |UNIT|
UNITS = 4 * LANES

# Rows of the moment array.
C1 = 0 * LANES
C2 = 1 * LANES
R0 = 2 * LANES
R1 = 3 * LANES
E = 4 * LANES
MOMENTS = 5 * LANES

Real = np.float32

ZERO = np.float32(0)
ONE = np.float32(1)
TWO = np.float32(2)
TINY = np.float32(1e-30)
FAR = np.float32(3e38)


class Lanes(NamedTuple):
    """LANES groups at work: flat float32 arrays."""

    x: Floats
    """Weights, (size, LANES)."""
    w: Floats
    """Their importance, (size, LANES)."""
    p: Floats
    """Levels: the rows from INVERSE to PARAMETERS."""
    m: Floats
    """Moments: the rows from C1 to MOMENTS."""
    u: Floats
    """Units: the rows from UNIT to UNITS."""


class Rules(NamedTuple):
    """What holds for all groups of a tensor."""

    low: Real
    """The least code."""
    high: Real
    """The greatest code."""
    symmetric: bool
    """Whether the offset is 0."""
    zeroed: bool
    """Whether 0 must be a level, as far as the stored type allows: offset = -scale * code."""
    zero_point: bool
    """Whether the code z of 0 is stored in place of the offset, which is then -scale * z."""
    ceiling: Real
    """The greatest offset."""
    magic: Real
    """`FloatType.magic` of the stored scale and offset."""
    finest: Real
    """The smallest normal value of that type."""
    limit: Real
    """The largest finite value of that type."""
    decoded: bool
    """Whether the runtime rounds product and sum to that type too."""
    starts: Floats
    """(starts, 2): see `start` and `start_symmetric`."""
    refits: int
    """Least-squares refits after the best start."""
    scanned: bool
    """Whether the starts are only scanned: see `scan`."""


@njit(**INNER, fastmath=EXACT)
def rounded(value: Real, magic: Real, finest: Real, limit: Real) -> Real:
    """`value` to the nearest stored parameter: see `FloatType.magic`."""
    power = bits_float(float_bits(value) & np.int32(0x7F800000))
    shift = max(power, finest) * magic
    value = (value + shift) - shift
    return min(max(value, -limit), limit)


@njit(**INNER, fastmath=STRICT)
def inverse(scale: Real) -> Real:
    """1 / scale, or 0 for a scale that is as good as 0."""
    return ONE / scale if abs(scale) > TINY else ZERO


@njit(**INLINED, fastmath=STRICT)
def tile_at(lanes: Lanes, at: int) -> Lanes:
    """The tile of all lanes whose first weight lies at `at`."""
    x, w, p, m, u = lanes
    return Lanes(x[at : at + STEP], w[at : at + STEP], p, m, u)


@njit(**INLINED, fastmath=STRICT)
def accumulate_tile(tile: Lanes, rules: Rules) -> None:
    """Add the moments of TILE weights of every lane."""
    x, w, p, m, _ = tile
    low = rules.low
    high = rules.high
    for lane in range(LANES):
        reciprocal = p[INVERSE + lane]
        scale = p[SCALE + lane]
        offset = p[OFFSET + lane]
        c1 = m[C1 + lane]
        c2 = m[C2 + lane]
        r0 = m[R0 + lane]
        r1 = m[R1 + lane]
        e2 = m[E + lane]
        for j in range(TILE):
            centred = x[j * LANES + lane] - offset
            weight = w[j * LANES + lane]
            q = min(max(np.rint(centred * reciprocal), low), high)
            e = centred - scale * q
            wq = weight * q
            we = weight * e
            c1 += wq
            c2 += wq * q
            r0 += we
            r1 += we * q
            e2 += we * e
        m[C1 + lane] = c1
        m[C2 + lane] = c2
        m[R0 + lane] = r0
        m[R1 + lane] = r1
        m[E + lane] = e2


@njit(**INLINED, fastmath=STRICT)
def accumulate_symmetric_tile(tile: Lanes, rules: Rules) -> None:
    """`accumulate_tile` where the offset is 0: only C2, R1 and E are added to."""
    x, w, p, m, _ = tile
    low = rules.low
    high = rules.high
    for lane in range(LANES):
        reciprocal = p[INVERSE + lane]
        scale = p[SCALE + lane]
        c2 = m[C2 + lane]
        r1 = m[R1 + lane]
        e2 = m[E + lane]
        for j in range(TILE):
            here = x[j * LANES + lane]
            weight = w[j * LANES + lane]
            q = min(max(np.rint(here * reciprocal), low), high)
            e = here - scale * q
            we = weight * e
            c2 += weight * q * q
            r1 += we * q
            e2 += we * e
        m[C2 + lane] = c2
        m[R1 + lane] = r1
        m[E + lane] = e2


@njit(**INLINED, fastmath=EXACT)
def accumulate_decoded_tile(tile: Lanes, rules: Rules) -> None:
    """Add to E alone, as a runtime decodes that rounds product and sum to the stored type."""
    x, w, p, m, u = tile
    low = rules.low
    high = rules.high
    magic = rules.magic
    for lane in range(LANES):
        reciprocal = p[INVERSE + lane]
        scale = p[SCALE + lane]
        offset = p[OFFSET + lane]
        finest = u[FINEST + lane]
        limit = u[LIMIT + lane]
        e2 = m[E + lane]
        for j in range(TILE):
            here = x[j * LANES + lane]
            q = min(max(np.rint((here - offset) * reciprocal), low), high)
            product = rounded(q * scale, magic, finest, limit)
            e = here - rounded(product + offset, magic, finest, limit)
            e2 += w[j * LANES + lane] * e * e
        m[E + lane] = e2


@njit(**INNER, fastmath=EXACT)
def accumulate_decoded(lanes: Lanes, rules: Rules) -> None:
    """E of every lane at its present levels, as `accumulate_decoded_tile` counts it."""
    for lane in range(LANES):
        lanes.m[E + lane] = ZERO
    for at in range(0, lanes.x.size, STEP):
        accumulate_decoded_tile(tile_at(lanes, at), rules)


@kernel(error_model="numpy", fastmath=STRICT)
def accumulate(lanes: Lanes, rules: Rules) -> None:
    """The moments of every lane at its present INVERSE, SCALE and OFFSET."""
    for i in range(MOMENTS):
        lanes.m[i] = ZERO
    if rules.symmetric:
        for at in range(0, lanes.x.size, STEP):
            accumulate_symmetric_tile(tile_at(lanes, at), rules)
    else:
        for at in range(0, lanes.x.size, STEP):
            accumulate_tile(tile_at(lanes, at), rules)


@njit(**INLINED, fastmath=STRICT)
def shrink_tile(x: Floats, u: Floats) -> None:
    """Bring TILE weights of every lane to the lane's unit."""
    for lane in range(LANES):
        shrink = u[SHRINK + lane]
        for j in range(TILE):
            x[j * LANES + lane] *= shrink


@njit(**INNER, fastmath=STRICT)
def load(source: Floats, first: int, lanes: Lanes, rules: Rules) -> None:
    """Transpose and scale the runs of weights from `first` on, a run a lane; spare lanes are 0."""
    x, u = lanes.x, lanes.u
    size = x.size // LANES
    runs = source[first * size : (first + LANES) * size]
    if runs.size < x.size:
        padded = np.empty(x.size, np.float32)
        for i in range(x.size):  # to assign a slice takes numba seconds to compile
            padded[i] = runs[i] if i < runs.size else ZERO
        runs = padded
    for lane in range(LANES):
        most = np.int32(0)
        for j in range(size):
            most = max(most, np.int32(float_bits(runs[lane * size + j]) & np.int32(0x7FFFFFFF)))
        exponent = np.int32(min(max(most >> np.int32(23), np.int32(1)), np.int32(253)))
        shrink = bits_float(np.int32((np.int32(254) - exponent) << np.int32(23)))
        u[UNIT + lane] = bits_float(np.int32(exponent << np.int32(23)))
        u[SHRINK + lane] = shrink
        u[FINEST + lane] = rules.finest * shrink
        u[LIMIT + lane] = rules.limit * shrink
    for lane in range(0, LANES, SIDE):
        for j in range(0, size, SIDE):
            transpose_block(runs, lane * size + j, size, x, j * LANES + lane, LANES)
    for at in range(0, x.size, STEP):
        shrink_tile(x[at : at + STEP], u)


@njit(**INNER, fastmath=STRICT)
def load_importance(importance: Floats, first: int, w: Floats) -> None:
    """Transpose the importance of the weights of LANES runs from `first` on."""
    size = w.size // LANES
    per_row = importance.size // size
    for lane in range(0, LANES, SIDE):
        run = (first + lane) % per_row
        if run + SIDE <= per_row:
            for j in range(0, size, SIDE):
                transpose_block(importance, run * size + j, size, w, j * LANES + lane, LANES)
        else:  # the end of a row, and the beginning of the next
            for beside in range(SIDE):
                at = ((run + beside) % per_row) * size
                for j in range(size):
                    w[j * LANES + lane + beside] = importance[at + j]


@njit(**INLINED, fastmath=STRICT)
def measure_tile(x: Floats, w: Floats, p: Floats) -> None:
    """Extend LEAST, GREATEST and MASS by TILE weights of every lane."""
    for lane in range(LANES):
        least = p[LEAST + lane]
        greatest = p[GREATEST + lane]
        mass = p[MASS + lane]
        for j in range(TILE):
            here = x[j * LANES + lane]
            least = min(least, here)
            greatest = max(greatest, here)
            mass += w[j * LANES + lane]
        p[LEAST + lane] = least
        p[GREATEST + lane] = greatest
        p[MASS + lane] = mass


@njit(**INNER, fastmath=STRICT)
def measure(lanes: Lanes) -> None:
    """LEAST, GREATEST and MASS of every lane; no best or next levels yet."""
    x, w, p, _, _ = lanes
    for lane in range(LANES):
        p[LEAST + lane] = FAR
        p[GREATEST + lane] = -FAR
        p[MASS + lane] = ZERO
        p[BEST_SCALE + lane] = ZERO
        p[BEST_OFFSET + lane] = ZERO
        p[BEST_ERROR + lane] = FAR
        p[NEXT_SCALE + lane] = ZERO
        p[NEXT_OFFSET + lane] = ZERO
        p[NEXT_ERROR + lane] = FAR
    for at in range(0, x.size, STEP):
        measure_tile(x[at : at + STEP], w[at : at + STEP], p)
