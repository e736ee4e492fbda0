"""GGUF grids against ggml itself, gguf-py and slow packers."""

import ggml_reference as ggml
import gguf
import numpy as np
import pytest
import slow_blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.quantization.affine import nearest_codes
from phiquant.targets.gguf.blocks import LAYOUTS, pack_blocks, unpack_blocks
from phiquant.targets.gguf.grids import GRIDS
from weight_samples import degenerate, importance_of, samples, squared_error

BLOCKS = tuple(LAYOUTS)
FLOATS = ("F32", "F16", "BF16")


def same_bits(one, other):
    one = np.ascontiguousarray(one, np.float32).view(np.uint32)
    return np.array_equal(one, np.ascontiguousarray(other, np.float32).view(np.uint32))


def gguf_decode(name, data):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(("rows", "blocks"), [(1, 1), (1, 5), (3, 7), (2000, 1), (257, 3)])
def test_decode_agrees_with_ggml_and_gguf_py_on_what_we_encode(name, rows, blocks):
    columns = blocks * GRIDS[name].block
    weights = np.random.default_rng(0).standard_t(3, (rows, columns)).astype(np.float32)
    parts = GRIDS[name].encode(weights)
    layout = GRIDS[name].layout(weights.shape)
    assert {key: (part.dtype, part.shape) for key, part in parts.items()} == {
        key: (part.dtype, part.shape) for key, part in layout.items()
    }
    decoded = GRIDS[name].decode(parts, columns)
    assert same_bits(decoded, gguf_decode(name, parts["data"]))
    assert same_bits(decoded, ggml.dequantize(name, parts["data"], columns))


@pytest.mark.parametrize("name", BLOCKS)
def test_decode_agrees_with_ggml_and_gguf_py_on_any_bytes(name):
    layout = LAYOUTS[name]
    columns = 3 * layout.weights
    data = np.random.default_rng(1).integers(0, 256, (200, 3 * layout.nbytes), dtype=np.uint8)
    decoded = GRIDS[name].decode({"data": data}, columns)
    theirs = ggml.dequantize(name, data, columns)
    finite = np.isfinite(theirs)
    assert finite.mean() > 0.5
    assert same_bits(decoded[finite], theirs[finite])
    assert same_bits(decoded[finite], gguf_decode(name, data)[finite])


@pytest.mark.parametrize("name", BLOCKS)
def test_we_decode_what_ggml_encodes(name):
    weights = samples(8)["student"]
    data = ggml.quantize(name, weights, importance_of())
    assert same_bits(
        GRIDS[name].decode({"data": data}, weights.shape[1]),
        ggml.dequantize(name, data, weights.shape[1]),
    )


@pytest.mark.parametrize("name", BLOCKS)
@settings(max_examples=25)
@given(data=st.data())
def test_packing_against_a_slow_packer(name, data):
    layout = LAYOUTS[name]
    rows = data.draw(st.integers(1, 3))
    blocks = data.draw(st.integers(1, 4))
    seed = data.draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    fields = {
        key: generator.integers(*slow_blocks.RANGES[name][key], (rows, blocks * field.count))
        .astype(np.uint16)
        .view(np.int16)
        for key, field in layout.fields.items()
    }
    packed = pack_blocks(layout, rows, fields)
    for row in range(rows):
        slow = b"".join(
            slow_blocks.pack(
                name,
                {
                    key: fields[key][row, block * field.count : (block + 1) * field.count].tolist()
                    for key, field in layout.fields.items()
                },
            )
            for block in range(blocks)
        )
        assert packed[row].tobytes() == slow
    unpacked = unpack_blocks(layout, packed)
    assert {key: value.tolist() for key, value in unpacked.items()} == {
        key: value.tolist() for key, value in fields.items()
    }


@pytest.mark.parametrize("name", BLOCKS)
def test_affine_contract(name):
    grid = GRIDS[name]
    weights = samples(5)["laplace"]
    levels = grid.fit(weights)
    codes = nearest_codes(weights, levels, grid)
    low, high = grid.code_range
    assert low <= codes.min() and codes.max() <= high
    parts = grid.pack(codes, levels)
    assert np.array_equal(parts["data"], grid.encode(weights)["data"])
    again, unpacked = grid.unpack(parts, weights.shape[1])
    assert np.array_equal(again, codes)
    assert same_bits(unpacked.scale, levels.scale)
    assert same_bits(unpacked.offset, levels.offset)
    size = weights.shape[1] // levels.scale.shape[1]
    assert size == grid.group
    plain = np.repeat(levels.scale, size, 1) * codes + np.repeat(levels.offset, size, 1)
    assert same_bits(plain, grid.decode(parts, weights.shape[1]))
    assert np.array_equal(grid.pack(again, unpacked)["data"], parts["data"])


@pytest.mark.parametrize("name", BLOCKS)
def test_bands_do_not_show(name):
    weights = np.random.default_rng(2).standard_normal((700, 512)).astype(np.float32)
    whole = GRIDS[name].encode(weights)["data"]
    rows = [GRIDS[name].encode(weights[row : row + 1])["data"] for row in range(0, 700, 37)]
    assert np.array_equal(np.concatenate(rows), whole[::37])
    assert np.array_equal(GRIDS[name].encode(weights[:, :].T.copy().T)["data"], whole)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", BLOCKS)
def test_no_worse_than_ggml(name, weighted):
    importance = importance_of() if weighted else None
    for kind, weights in samples().items():
        ours = GRIDS[name].decode(GRIDS[name].encode(weights, importance), weights.shape[1])
        theirs = ggml.dequantize(name, ggml.quantize(name, weights, importance), weights.shape[1])
        ratio = squared_error(ours, weights, importance) / squared_error(
            theirs, weights, importance
        )
        assert ratio <= 0.995, (kind, ratio)


@pytest.mark.parametrize("name", BLOCKS)
def test_no_worse_than_ggml_on_single_rows(name):
    for kind, weights in samples(24).items():
        ours = GRIDS[name].decode(GRIDS[name].encode(weights), weights.shape[1])
        theirs = ggml.dequantize(name, ggml.quantize(name, weights), weights.shape[1])
        wanted = ((theirs.astype(np.float64) - weights) ** 2).sum(1)
        assert (((ours.astype(np.float64) - weights) ** 2).sum(1) <= wanted).all(), kind


@pytest.mark.parametrize("name", BLOCKS)
def test_degenerate_groups(name):
    no_importance = np.zeros(768, np.float32)
    partly = no_importance.copy()
    partly[::7] = 3
    for kind, weights in degenerate().items():
        for importance in (None, no_importance, partly):
            decoded = GRIDS[name].decode(GRIDS[name].encode(weights, importance), 768)
            assert np.isfinite(decoded).all(), kind
        ours = squared_error(GRIDS[name].decode(GRIDS[name].encode(weights), 768), weights)
        theirs = squared_error(ggml.dequantize(name, ggml.quantize(name, weights), 768), weights)
        energy = squared_error(np.zeros_like(weights), weights)
        assert ours <= theirs + 1e-5 * energy, kind
        if kind in ("zero", "subnormal"):
            assert not decoded.any()


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(name, value):
    weights = np.ones((2, 512), np.float32)
    weights[1, 300] = value
    with pytest.raises(ValueError, match="finite"):
        GRIDS[name].encode(weights)


@pytest.mark.parametrize("name", [*BLOCKS, "F16"])
def test_weights_too_large(name):
    weights = np.ones((2, 512), np.float32)
    weights[1, 300] = 1e30
    with pytest.raises(ValueError, match=r"store this tensor as .*F32 instead"):
        GRIDS[name].encode(weights)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_largest_float16_values(name):
    weights = np.random.default_rng(0).choice([-65504.0, 0.0, 65504.0], (2, 512)).astype(np.float32)
    decoded = GRIDS[name].decode(GRIDS[name].encode(weights), 512)
    assert np.isfinite(decoded).all()
    assert np.abs(decoded - weights).max() < 0.4 * 65504


@pytest.mark.parametrize("name", BLOCKS)
def test_rows_of_broken_blocks_and_bad_importance(name):
    grid = GRIDS[name]
    with pytest.raises(ValueError, match="whole blocks"):
        grid.encode(np.ones((2, grid.block + 1), np.float32))
    with pytest.raises(ValueError, match="importances"):
        grid.encode(np.ones((2, 512), np.float32), np.ones(511, np.float32))
    with pytest.raises(ValueError, match="importances"):
        grid.encode(np.ones((2, 512), np.float32), np.full(512, -1, np.float32))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (700, 129)])
def test_floats(name, shape):
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    grid = GRIDS[name]
    parts = grid.encode(weights)
    (layout,) = grid.layout(shape).values()
    assert parts["data"].shape == layout.shape and parts["data"].dtype == layout.dtype
    decoded = grid.decode(parts, shape[1])
    kind = gguf.GGMLQuantizationType[name]
    if name == "F32":
        assert same_bits(decoded, weights)
        return
    theirs = gguf.quants.quantize(weights, kind)
    assert np.array_equal(parts["data"], theirs.view(np.uint8).reshape(parts["data"].shape))
    assert same_bits(decoded, gguf.quants.dequantize(theirs, kind))
