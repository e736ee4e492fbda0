"""ONNX's grids: layout, packing, decoding as onnxruntime's own dequantization does it."""

import numpy as np
import pytest

from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.targets.onnx.grids import BITS, BLOCKS, BlockwiseGrid, pack_codes, unpack_codes

ort = pytest.importorskip("onnxruntime")
ir = pytest.importorskip("onnx_ir")


def every_grid():
    return [
        BlockwiseGrid(bits, block, symmetric, FLOAT_TYPES[kind])
        for bits in BITS
        for block in BLOCKS
        for symmetric in (True, False)
        for kind in ("F32", "F16")
    ]


def sample(rows, columns, seed=0):
    weights = np.random.default_rng(seed).standard_t(6, (rows, columns)).astype(np.float32) / 20
    weights[0] = 0
    weights[1, : columns // 2] = 0.01
    return weights


def gathered(grid, parts, rows):
    """All rows by GatherBlockQuantized, onnxruntime's own unpacking of the same bytes."""
    arrays = {"B": parts["weight"].reshape(rows, -1), "scales": parts["scales"]}
    if not grid.symmetric:
        arrays["zero_points"] = parts["zero_points"]
    stored = [
        ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in
        arrays.items()
    ]  # fmt: skip
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([rows]))
    node = ir.node(
        "GatherBlockQuantized",
        [stored[0], ids, *stored[1:]],
        domain="com.microsoft",
        attributes={
            "bits": grid.bits,
            "block_size": grid.block,
            "gather_axis": 0,
            "quantize_axis": 1,
        },
    )
    node.outputs[0].name = "rows"
    node.outputs[0].type = ir.TensorType(ir.DataType.from_numpy(parts["scales"].dtype))
    graph = ir.Graph(
        [ids],
        node.outputs,
        nodes=[node],
        initializers=stored,
        opset_imports={"": 21, "com.microsoft": 1},
        name="gather",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.arange(rows)})[0]


@pytest.mark.parametrize("grid", every_grid(), ids=lambda grid: f"{grid.name} {grid.kind.name}")
def test_decodes_to_what_the_runtime_dequantizes(grid):
    weights = sample(7, 768)
    parts = grid.encode(weights)
    for name, layout in grid.layout(weights.shape).items():
        assert (parts[name].dtype, parts[name].shape) == (layout.dtype, layout.shape)
    decoded = grid.decode(parts, 768)
    dequantized = gathered(grid, parts, 7)
    if dequantized.dtype == np.float32:
        np.testing.assert_array_equal(decoded, dequantized)
    else:  # the operator rounds its FP16 output once more
        np.testing.assert_array_equal(decoded.astype(np.float16), dequantized)
    error = np.linalg.norm(decoded - weights) / np.linalg.norm(weights)
    assert error < (0.16 if grid.bits == 4 else 0.02)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", BITS)
def test_codes_survive_packing(bits, symmetric):
    grid = BlockwiseGrid(bits, 16, symmetric, FLOAT_TYPES["F32"])
    weights = sample(3, 48)
    levels = grid.fit(weights)
    codes = np.random.default_rng(1).integers(0, 1 << bits, (3, 48)).astype(np.int16)
    unpacked, same = grid.unpack(grid.pack(codes, levels), 48)
    np.testing.assert_array_equal(unpacked, codes)
    np.testing.assert_array_equal(same.scale, levels.scale)
    np.testing.assert_allclose(same.offset, levels.offset)


@pytest.mark.parametrize("columns", [1, 2, 3, 8])
def test_odd_rows_of_nibbles_are_padded(columns):
    codes = np.arange(4 * columns).reshape(4, columns).astype(np.int16) % 16
    packed = pack_codes(codes, 4)
    assert packed.shape == (4, (columns + 1) // 2)
    np.testing.assert_array_equal(unpack_codes(packed, 4, columns), codes)


@pytest.mark.parametrize("bits", BITS)
def test_symmetric_rounding_beats_the_usual_one(bits):
    """The usual: the extreme weight has the lowest code, a scale an extreme."""
    weights = sample(50, 128)[2:]
    half = 1 << (bits - 1)
    groups = weights.reshape(-1, 32)
    extreme = groups[np.arange(len(groups)), np.abs(groups).argmax(1)]
    scale = (extreme / -half)[:, None]
    usual = np.clip(np.rint(groups / scale), -half, half - 1) * scale
    grid = BlockwiseGrid(bits, 32, True, FLOAT_TYPES["F32"])
    ours = grid.decode(grid.encode(weights), 128).reshape(-1, 32)
    assert np.square(ours - groups).sum() < 0.98 * np.square(usual - groups).sum()


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(ValueError, match="blocks of"):
        BlockwiseGrid(4, 24, True, FLOAT_TYPES["F32"])
    grid = BlockwiseGrid(4, 32, True, FLOAT_TYPES["F16"])
    with pytest.raises(ValueError, match="magnitudes up to"):
        grid.encode(np.full((1, 32), 1e6, np.float32))
    with pytest.raises(ValueError, match="finite"):
        grid.encode(np.full((1, 32), np.nan, np.float32))
