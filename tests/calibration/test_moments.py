import numpy as np
import pytest

from phiquant.calibration.moments import ACROSS, BAND, Moments


def drawn(tokens, width, seed):
    return np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 7, BAND, BAND + 3, ACROSS + BAND + 5])
def test_moments_are_means_over_all_chunks(width):
    chunks = [
        (drawn(count, width, count), drawn(count, width, 50 + count), drawn(count, 9, 90 + count))
        for count in (5, 30, 1)
    ]
    moments = Moments(width)
    for chunk in chunks:
        moments.add(*chunk)
    inputs, original, behind = (
        np.concatenate(parts).astype(np.float64) for parts in zip(*chunks, strict=True)
    )
    tokens = len(inputs)
    np.testing.assert_allclose(moments.second, inputs.T @ inputs / tokens, atol=1e-5)
    np.testing.assert_allclose(moments.shift, (original - inputs).T @ inputs / tokens, atol=1e-5)
    np.testing.assert_allclose(moments.behind, behind.T @ inputs / tokens, atol=1e-5)
    assert np.array_equal(moments.second, moments.second.T)


def test_there_is_no_shift_and_nothing_behind_without_an_original():
    moments = Moments(4)
    moments.add(drawn(3, 4, 0))
    assert moments.shift is None
    assert moments.behind is None
