"""Every grid of every target, on values that formats find hard."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.quantization.grid import grid_over, stored_bytes
from phiquant.targets.table import targets

GRIDS = {f"{one.name} {name}": grid for one in targets() for name, grid in one.grids.items()}
LEAST, LARGEST = np.float32(1e-45), np.float32(65504)
"""The least float32, a subnormal, and FP16's largest value."""
HALF = (6.104e-5, 6.0976e-5, 5.96e-8, 2.98e-8, 2.9e-8, 65504.0, 65519.0, 32752.0)
"""Around FP16's least normal and least subnormal values, and its largest."""
BENEATH = 1e-38
"""Errors so small are those of float32's own subnormal numbers."""
SAFE = 24_564.0
"""Weights up to here are never refused: three eighths of FP16's largest, whatever the grid."""

signs = st.sampled_from([-1.0, 1.0])
magnitudes = st.one_of(
    st.sampled_from(HALF),
    st.floats(-44.8, 4.8).map(lambda power: 10.0**power),
    st.just(float(LEAST)),
)
values = st.builds(lambda sign, size: np.float32(sign * size), signs, magnitudes)


@st.composite
def rows(draw, columns):
    """One row: what a format finds hard, in one of several ways."""
    kind = draw(st.sampled_from(["zeros", "constant", "spike", "few", "powers", "steps"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    row = np.zeros(columns, np.float32)
    if kind == "constant":
        row[:] = draw(values)
    elif kind == "spike":  # a huge weight among tiny ones
        row[:] = np.float32(draw(magnitudes)) * random.standard_normal(columns).astype(np.float32)
        row[random.integers(columns)] = draw(values)
    elif kind == "few":
        row[:] = random.choice([draw(values) for _ in range(draw(st.integers(2, 4)))], columns)
    elif kind == "powers":  # every magnitude that a float32 up to FP16's largest has
        powers = random.uniform(-45, 4.8, columns)
        row[:] = (random.choice([-1, 1], columns) * 10.0**powers).astype(np.float32)
    elif kind == "steps":  # evenly spaced from zero, as a grid's own levels are
        row[:] = np.arange(columns, dtype=np.float32) % draw(st.integers(2, 260)) * draw(values)
    return row.clip(-LARGEST * 1.0002, LARGEST * 1.0002)


def per_block(array, grid):
    return array.reshape(-1, grid.block).astype(np.float64)


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=12)
@given(data=st.data())
def test_hard_values(name, data):
    """What is stored has its planned bytes, decodes to numbers, is nearer to the weights than zeros
    are, and follows from each row alone; the only refusal is of what FP16 cannot hold.
    """
    kind = GRIDS[name]
    columns = 2 * kind.block if kind.block >= 16 else 64
    grid = grid_over(kind, columns)
    weights = np.stack(data.draw(st.lists(rows(columns), min_size=1, max_size=3)))
    try:
        parts = grid.encode(weights)
    except ValueError as refused:
        assert np.abs(weights).max() > SAFE, refused
        return
    layout = grid.layout(weights.shape)
    assert {key: (part.dtype, part.shape) for key, part in parts.items()} == {
        key: (part.dtype, part.shape) for key, part in layout.items()
    }
    assert sum(part.nbytes for part in parts.values()) == stored_bytes(grid, weights.shape)
    decoded = grid.decode(parts, columns)
    assert decoded.shape == weights.shape
    assert np.isfinite(decoded).all()
    error = (per_block(decoded, grid) - per_block(weights, grid)) ** 2
    zeros = per_block(weights, grid) ** 2
    assert (error.sum(1) <= zeros.sum(1) * (1 + 1e-6) + grid.block * BENEATH**2).all()
    for row in range(len(weights)):
        alone = grid.encode(weights[row : row + 1])
        assert all(np.array_equal(alone[key][0], part[row]) for key, part in parts.items())
    again = grid.decode({key: part.copy() for key, part in parts.items()}, columns)
    assert np.array_equal(again.view(np.uint32), decoded.view(np.uint32))
