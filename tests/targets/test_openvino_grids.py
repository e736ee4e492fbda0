"""The grids against slow loops and against OpenVINO's own arithmetic on the same constants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.quantization.nibbles import pack, pack_run, unpack, unpack_run
from phiquant.targets.openvino.formats import GRIDS, INTEGER_GRIDS

ov = pytest.importorskip("openvino")


def weights_like(rows, columns, seed=0):
    random = np.random.default_rng(seed)
    values = random.normal(0, 0.05, (rows, columns)) * random.lognormal(0, 0.5, (rows, 1))
    return values.astype(np.float32)


def runtime_decodes(grid, parts, columns):
    """What OpenVINO computes for the decompression subgraph over the stored bytes."""
    from openvino import opset15 as ops

    rows = len(parts["weight"])
    shape = (rows, columns // grid.group, grid.group) if grid.group else (rows, columns)

    def constant(array, shape):
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        kind = getattr(ov.Type, grid.element_type)
        return ops.constant(ov.Tensor(bits, ov.Shape(shape), kind), shared_memory=False)

    codes = ops.convert(constant(parts["weight"], shape), "f32")
    parameters = (*shape[:-1], 1)
    if "zero_point" in parts:
        zeros = parts["zero_point"]
        zeros = pack_run(zeros) if grid.bits == 4 else zeros
        codes = ops.subtract(codes, ops.convert(constant(zeros, parameters), "f32"))
    scale = parts["scale"].astype(np.float32).reshape(parameters)
    model = ov.Model([ops.multiply(codes, ops.constant(scale))], [], "decode")
    decoded = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])[0]
    return decoded.reshape(rows, columns)


@pytest.mark.parametrize("name", sorted(INTEGER_GRIDS))
@pytest.mark.parametrize("rows", [1, 5])
def test_decoding_is_the_runtimes_own(name, rows):
    grid = INTEGER_GRIDS[name]
    columns = 3 * (grid.group or 40)
    parts = grid.encode(weights_like(rows, columns))
    np.testing.assert_array_equal(
        grid.decode(parts, columns), runtime_decodes(grid, parts, columns)
    )


@pytest.mark.parametrize("name", sorted(INTEGER_GRIDS))
def test_codes_survive_packing(name):
    grid = INTEGER_GRIDS[name]
    columns = grid.group or 24
    low, high = grid.code_range
    random = np.random.default_rng(1)
    codes = random.integers(low, high + 1, (3, columns)).astype(np.int16)
    levels = grid.fit(weights_like(3, columns))
    unpacked, _ = grid.unpack(grid.pack(codes, levels), columns)
    np.testing.assert_array_equal(unpacked, codes)


@pytest.mark.parametrize("name", sorted(INTEGER_GRIDS))
def test_searched_levels_beat_the_usual_ones(name):
    grid = INTEGER_GRIDS[name]
    columns = 2 * (grid.group or 128)
    weights = weights_like(16, columns, 4)
    groups = weights.reshape(16, -1, grid.group or columns)
    low, high = grid.code_range
    if grid.symmetric:
        scale = np.abs(groups).max(-1, keepdims=True) / high
        usual = np.clip(np.rint(groups / scale), low, high) * scale
    else:
        least = np.minimum(groups.min(-1, keepdims=True), 0)
        scale = (np.maximum(groups.max(-1, keepdims=True), 0) - least) / high
        zero = np.clip(np.rint(-least / scale), low, high)
        usual = (np.clip(np.rint(groups / scale) + zero, low, high) - zero) * scale
    decoded = grid.decode(grid.encode(weights), columns)
    assert (
        np.square(decoded - weights).sum() < np.square(usual.reshape(weights.shape) - weights).sum()
    )


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_extreme_weights(name):
    grid = GRIDS[name]
    columns = getattr(grid, "group", 0) or 32
    for values in (0.0, 3.0, -2.0, 1e-9, 60000.0):
        weights = np.full((2, columns), values, np.float32)
        decoded = grid.decode(grid.encode(weights), columns)
        assert np.abs(decoded - values).max() <= max(2e-3 * abs(values), 1e-7)
    with pytest.raises(ValueError, match="finite"):
        grid.encode(np.full((1, columns), np.nan, np.float32))


@given(st.integers(1, 5), st.integers(1, 7), st.integers(0, 2**32))
@settings(max_examples=20)
def test_runs_of_nibbles(rows, columns, seed):
    values = np.random.default_rng(seed).integers(0, 16, (rows, columns)).astype(np.uint8)
    packed = pack_run(values)
    slow = bytearray((values.size + 1) // 2)
    for at, value in enumerate(values.reshape(-1)):
        slow[at // 2] |= int(value) << (4 * (at % 2))
    assert packed.tobytes() == bytes(slow)
    np.testing.assert_array_equal(unpack_run(packed, values.size), values.reshape(-1))


def test_signed_nibbles():
    codes = np.arange(-8, 8, dtype=np.int16)[None]
    np.testing.assert_array_equal(unpack(pack(codes), True), codes)
