import math

import numpy as np
import pytest

from phiquant.phi.network.parts import LongRope, Rope
from phiquant.phi.network.rope import frequencies, rotate, rotation, uses_long_factors

LONG = LongRope((1.0, 2.0, 3.0), (4.0, 5.0, 7.0), 32, 1.25)
ROPE = Rope(10000.0, 6, LONG)


def test_frequencies_are_inverse_wavelengths():
    assert frequencies(Rope(10000.0, 4), 1) == pytest.approx([1.0, 0.01])


@pytest.mark.parametrize(("length", "factors"), [(31, (1, 2, 3)), (32, (1, 2, 3)), (33, (4, 5, 7))])
def test_the_factors_are_chosen_by_the_whole_length(length, factors):
    expected = [1 / (f * 10000 ** (2 * i / 6)) for i, f in enumerate(factors)]
    assert frequencies(ROPE, length) == pytest.approx(expected, rel=1e-6)
    assert uses_long_factors(ROPE, length) == (length > 32)


def test_without_longrope_no_length_is_long():
    assert not uses_long_factors(Rope(10000.0, 6), 10**6)


def test_rotation_turns_each_pair_and_passes_the_rest():
    positions = np.array([0, 5, 40])
    turn = rotation(ROPE, positions, 41)
    heads = np.random.default_rng(0).standard_normal((3, 2, 10)).astype(np.float32)
    turned = rotate(heads, turn)
    assert turned.dtype == np.float32
    expected = heads.astype(np.float64)
    for t, position in enumerate(positions):
        for i, factor in enumerate(LONG.long_factors):
            angle = position / (factor * 10000 ** (2 * i / 6))
            c, s = 1.25 * math.cos(angle), 1.25 * math.sin(angle)
            a, b = heads[t, :, i].astype(float), heads[t, :, i + 3].astype(float)
            expected[t, :, i] = a * c - b * s
            expected[t, :, i + 3] = a * s + b * c
    np.testing.assert_allclose(turned, expected, atol=1e-5)
    assert np.array_equal(turned[..., 6:], heads[..., 6:])


def test_scores_depend_on_the_distance_alone():
    rope = Rope(500.0, 8)
    q, k = np.random.default_rng(1).standard_normal((2, 1, 1, 8)).astype(np.float32)

    def score(i: int, j: int) -> float:
        left = rotate(q, rotation(rope, np.array([i]), 99))
        right = rotate(k, rotation(rope, np.array([j]), 99))
        return float((left * right).sum())

    assert score(9, 4) == pytest.approx(score(70, 65), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-3
