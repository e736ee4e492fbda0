"""Conversions between float types against numpy's and against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phiquant.quantization.floats import FLOAT_TYPES, cast, largest_magnitude, widen

F16 = FLOAT_TYPES["F16"]
BF16 = FLOAT_TYPES["BF16"]
F32 = FLOAT_TYPES["F32"]


def test_every_float16_widens_as_numpy_does():
    bits = np.arange(1 << 16, dtype=np.uint16)
    ours = widen(bits.view(np.float16), F16)
    theirs = bits.view(np.float16).astype(np.float32)
    numbers = ~np.isnan(theirs)
    assert np.array_equal(ours[numbers].view(np.uint32), theirs[numbers].view(np.uint32))
    assert np.isnan(ours[~numbers]).all()


def test_every_float16_and_every_tie_narrows_as_numpy_does():
    bits = np.arange(0x7BFF, dtype=np.uint16)
    low = bits.view(np.float16).astype(np.float32)
    high = (bits + 1).view(np.float16).astype(np.float32)
    ties = (low + high) / 2
    around = np.concatenate([low, ties, np.nextafter(ties, low), np.nextafter(ties, high)])
    values = np.concatenate([around, -around])
    assert np.array_equal(
        cast(values, F16).view(np.uint16), values.astype(np.float16).view(np.uint16)
    )


def test_random_bit_patterns_narrow_to_float16_as_numpy_does():
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 65520)]
    assert np.array_equal(
        cast(values, F16).view(np.uint16), values.astype(np.float16).view(np.uint16)
    )


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_bfloat16_is_the_nearest(value):
    values = np.array([value], np.float32)
    if abs(value) > 3.3961e38:
        return
    stored = int(cast(values, BF16)[0])
    nearest = Fraction(float(widen(np.array([stored], np.uint16), BF16)[0]))
    error = abs(Fraction(value) - nearest)
    for neighbour in (stored - 1, stored + 1):
        if 0 <= neighbour & 0x7FFF < 0x7F80 and (neighbour ^ stored) & 0x8000 == 0:
            other = widen(np.array([neighbour & 0xFFFF], np.uint16), BF16)[0]
            distance = abs(Fraction(value) - Fraction(float(other)))
            assert error < distance or (error == distance and stored % 2 == 0)


@pytest.mark.parametrize(
    ("kind", "value"), [(F16, 65520.0), (F16, -1e30), (BF16, 3.3999e38), (BF16, -3.4e38)]
)
def test_overflow_is_an_error_that_says_what_to_do(kind, value):
    with pytest.raises(ValueError, match=f"{kind.name} holds magnitudes up to .* as F32 instead"):
        cast(np.array([[0, value]], np.float32), kind)


@pytest.mark.parametrize("kind", [F16, BF16])
def test_the_largest_values_are_kept(kind):
    values = np.array([kind.largest, -kind.largest], np.float32)
    assert np.array_equal(widen(cast(values, kind), kind), values)


@pytest.mark.parametrize("kind", [F32, F16, BF16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(kind, value):
    with pytest.raises(ValueError, match="finite"):
        cast(np.array([1, value], np.float32), kind)


def test_largest_magnitude():
    assert largest_magnitude(np.array([[1, -7.5], [0, 3]], np.float32)) == 7.5
    assert largest_magnitude(np.zeros((1, 1), np.float32)) == 0
    assert largest_magnitude(np.array([[-1e-45]], np.float32)) == np.float32(1e-45)
