"""The searched levels against plain loops and against brute force."""

import numpy as np
import pytest

from phiquant.quantization.floats import FLOAT_TYPES, cast, widen
from phiquant.quantization.search import lanes
from phiquant.quantization.search.lanes import LANES, Lanes, accumulate
from phiquant.quantization.search.one_level import Search, search_levels
from phiquant.quantization.search.two_level import SuperSearch, search_super_levels

NONE = np.empty(0, np.float32)
CUTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plan_of(size, top, symmetric=False):
    if symmetric:
        starts = tuple((sign * (top + more), 0.0) for sign in (-1, 1) for more in (-0.5, 0, 0.5, 1))
        return Search(size, (-top - 1, top), starts, 2, symmetric=True)
    starts = tuple((top + more, cut) for more in (-0.5, 0.0, 0.5, 1.0) for cut in CUTS)
    return Search(size, (0, top), starts, 2, symmetric=False)


def squares_of(weights, scale, offset, codes, importance=1.0):
    with np.errstate(all="ignore"):
        q = np.clip(np.rint((weights - offset) / scale), *codes)
    q = np.nan_to_num(q)
    return importance * (weights - offset - scale * q) ** 2


def error_of(weights, scale, offset, codes, importance=1.0):
    return float(squares_of(weights, scale, offset, codes, importance).sum())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("size", [16, 32, 128])
def test_moments_against_a_plain_loop(size, symmetric):
    generator = np.random.default_rng(size)
    x = generator.standard_normal((size, LANES)).astype(np.float32)
    w = generator.random((size, LANES)).astype(np.float32)
    p = np.zeros((lanes.PARAMETERS // LANES, LANES), np.float32)
    m = np.zeros((lanes.MOMENTS // LANES, LANES), np.float32)
    u = np.zeros(lanes.UNITS, np.float32)
    scale = generator.uniform(0.1, 0.6, LANES).astype(np.float32)
    offset = np.zeros(LANES, np.float32)
    if not symmetric:
        offset = generator.uniform(-2, 0, LANES).astype(np.float32)
    p[lanes.SCALE // LANES] = scale
    p[lanes.OFFSET // LANES] = offset
    p[lanes.INVERSE // LANES] = 1 / scale
    rules = plan_of(size, 7, symmetric).rules(FLOAT_TYPES["F32"])
    accumulate(Lanes(x.ravel(), w.ravel(), p.ravel(), m.ravel(), u), rules)
    low, high = (-8, 7) if symmetric else (0, 7)
    q = np.clip(np.rint((x - offset) * (1 / scale)), low, high).astype(np.float64)
    e = x - offset.astype(np.float64) - scale * q
    wanted = {
        lanes.C1: (w * q).sum(0),
        lanes.C2: (w * q * q).sum(0),
        lanes.R0: (w * e).sum(0),
        lanes.R1: (w * q * e).sum(0),
        lanes.E: (w * e * e).sum(0),
    }
    if symmetric:
        del wanted[lanes.C1], wanted[lanes.R0]
    for row, values in wanted.items():
        assert np.allclose(m[row // LANES], values, rtol=2e-4, atol=2e-4), row


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("weighted", [False, True])
def test_close_to_brute_force(kind, weighted):
    generator = np.random.default_rng(0)
    weights = generator.standard_t(4, (12, 32)).astype(np.float32)
    importance = generator.lognormal(0, 1, 32).astype(np.float32) if weighted else NONE
    scale, offset = search_levels(weights, importance, plan_of(32, 7), FLOAT_TYPES[kind])
    factor = importance if weighted else 1.0
    ours = best = 0.0
    for row, group in enumerate(weights.astype(np.float64)):
        ours += error_of(group, float(scale[row, 0]), float(offset[row, 0]), (0, 7), factor)
        span = group.max() - group.min()
        steps = span / np.linspace(6, 13, 90)[:, None, None]
        offsets = group.min() + np.linspace(-0.1, 0.5, 90)[:, None] * span
        best += squares_of(group, steps, offsets, (0, 7), factor).sum(-1).min()
    assert ours <= (1.05 if weighted else 1.02) * best


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_levels_are_as_stored(kind):
    weights = np.random.default_rng(0).standard_normal((7, 192)).astype(np.float32)
    for levels in search_levels(weights, NONE, plan_of(64, 15), FLOAT_TYPES[kind]):
        stored = widen(cast(levels, FLOAT_TYPES[kind]), FLOAT_TYPES[kind])
        assert np.array_equal(stored, levels)


def test_scaling_by_a_power_of_two_changes_nothing_else():
    weights = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    plan = plan_of(64, 15)
    scale, offset = search_levels(weights, NONE, plan, FLOAT_TYPES["BF16"])
    for power in (-100, -20, 30, 100):
        factor = np.float32(2.0**power)
        wide, shifted = search_levels(weights * factor, NONE, plan, FLOAT_TYPES["BF16"])
        assert np.array_equal(wide, scale * factor)
        assert np.array_equal(shifted, offset * factor)


def test_only_ratios_of_importance_matter():
    weights = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    importance = np.full(64, 0.125, np.float32)
    plain = search_levels(weights, NONE, plan_of(64, 15), FLOAT_TYPES["F16"])
    alike = search_levels(weights, importance, plan_of(64, 15), FLOAT_TYPES["F16"])
    assert all(np.array_equal(one, other) for one, other in zip(plain, alike, strict=True))


def test_two_levels_lose_little_against_free_ones():
    weights = np.random.default_rng(3).standard_normal((40, 512)).astype(np.float32)
    free = plan_of(32, 15)
    divisors = tuple((63.0 + a, 63.0 + b) for a in (-1, 0, 1) for b in (-1, 0, 1))
    levels = search_super_levels(
        weights, NONE, SuperSearch(free, 8, (0, 63), 63, divisors), FLOAT_TYPES["F16"]
    )
    assert levels.subs.min() >= 0 and levels.subs.max() <= 63
    assert levels.minima.min() >= 0 and levels.minima.max() <= 63
    scale = np.repeat(levels.units, 8, 1) * levels.subs
    offset = -np.repeat(levels.minimum_units, 8, 1) * levels.minima
    groups = weights.reshape(-1, 32)
    ours = error_of(groups, scale.reshape(-1, 1), offset.reshape(-1, 1), (0, 15))
    free_scale, free_offset = search_levels(weights, NONE, free, FLOAT_TYPES["F32"])
    ideal = error_of(groups, free_scale.reshape(-1, 1), free_offset.reshape(-1, 1), (0, 15))
    assert ideal <= ours <= 1.06 * ideal


def test_super_blocks_of_positive_weights_are_mirrored():
    weights = (5 + np.random.default_rng(3).random((3, 256))).astype(np.float32)
    divisors = ((63.0, 63.0), (62.0, 62.0))
    plan = SuperSearch(plan_of(32, 15), 8, (0, 63), 63, divisors)
    levels = search_super_levels(weights, NONE, plan, FLOAT_TYPES["F16"])
    assert (levels.units < 0).all() and (levels.minimum_units < 0).all()
    scale = np.repeat(levels.units, 8, 1) * levels.subs
    offset = -np.repeat(levels.minimum_units, 8, 1) * levels.minima
    error = error_of(weights.reshape(-1, 32), scale.reshape(-1, 1), offset.reshape(-1, 1), (0, 15))
    assert error / weights.size < (1 / 15) ** 2 / 12 * 1.2
