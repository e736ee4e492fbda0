"""The search with integer zero points, against every scale and zero point worth trying."""

import numpy as np
import pytest

from phiquant.quantization.affine import check_importance
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.search.one_level import Search, search_zero_points

STARTS = tuple((15.0 + more, cut) for more in (0.0, 0.6, 1.2, 1.8) for cut in (0.0, 0.5, 1.0))


def search(weights, kind="F32", importance=None, size=32):
    given = check_importance(importance, weights.shape[1])
    plan = Search(size, (0, 15), STARTS, 2, False)
    return search_zero_points(weights, given, plan, FLOAT_TYPES[kind])


def errors(weights, scale, zero, importance=None, size=32):
    """Squared error of each group at the nearest codes."""
    groups = weights.reshape(-1, size).astype(np.float64)
    step = scale.reshape(-1, 1).astype(np.float64)
    zeros = zero.reshape(-1, 1)
    quotient = np.divide(groups, step, out=np.zeros_like(groups), where=step != 0)
    codes = np.clip(np.rint(quotient + zeros), 0, 15)
    loss = (groups - step * (codes - zeros)) ** 2
    if importance is not None:
        loss = loss * np.tile(importance, (len(weights), 1)).reshape(-1, size)
    return loss.sum(axis=1)


def exhaustive(group):
    """The least error over all zero points and a fine mesh of scales."""
    span = max(group.max(), 0) - min(group.min(), 0)
    best = np.inf
    for scale in span / np.linspace(13.5, 20, 300):
        for zero in range(16):
            codes = np.clip(np.rint(group / scale) + zero, 0, 15)
            best = min(best, float(((group - scale * (codes - zero)) ** 2).sum()))
    return best


@pytest.mark.parametrize("shift", [0.0, 1.5, -4.0])
def test_levels_are_close_to_the_best_there_are(shift):
    random = np.random.default_rng(1)
    weights = (random.normal(size=(6, 32)) + shift).astype(np.float32)
    ours = errors(weights, *search(weights))
    best = np.array([exhaustive(group.astype(np.float64)) for group in weights])
    assert (ours <= 1.3 * best).all()
    assert ours.sum() <= 1.1 * best.sum()


def test_plain_rounding_is_beaten():
    weights = np.random.default_rng(2).standard_t(5, (33, 96)).astype(np.float32)
    groups = weights.reshape(-1, 32)
    low, high = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
    scale = (high - low) / 15
    plain = errors(weights, scale, np.rint(-low / scale))
    ours = errors(weights, *search(weights))
    assert ours.sum() < 0.97 * plain.sum()


def test_zero_points_are_codes_and_scales_are_representable():
    weights = np.random.default_rng(3).normal(3, 1, (5, 64)).astype(np.float32)
    scale, zero = search(weights, "F16")
    assert scale.shape == zero.shape == (5, 2)
    np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(zero, np.clip(np.rint(zero), 0, 15))


def test_zeros_constants_and_extremes_stay_finite():
    weights = np.zeros((4, 32), np.float32)
    weights[1] = 0.7
    weights[2] = -3e-30
    weights[3, ::2] = 1e30
    scale, zero = search(weights)
    assert np.isfinite(scale).all()
    error = errors(weights, scale, zero)
    norm = (weights.astype(np.float64) ** 2).sum(axis=1)
    assert error[0] == 0
    assert (error <= 1e-4 * norm).all()


def test_importance_moves_the_levels_towards_what_matters():
    random = np.random.default_rng(4)
    weights = random.normal(size=(40, 32)).astype(np.float32)
    importance = random.lognormal(0, 2, 32).astype(np.float32)
    plain = errors(weights, *search(weights), importance)
    weighted = errors(weights, *search(weights, importance=importance), importance)
    assert weighted.sum() < 0.95 * plain.sum()
