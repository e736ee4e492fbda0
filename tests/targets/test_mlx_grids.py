"""MLX grids against mx.quantize, mx.dequantize and a slow packer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.quantization.affine import nearest_codes
from phiquant.quantization.floats import FLOAT_TYPES, cast, widen
from phiquant.targets.mlx.bits import pack_bits, unpack_bits
from phiquant.targets.mlx.formats import GRIDS
from phiquant.targets.mlx.grids import BITS, GROUPS, GroupedAffineGrid
from weight_samples import degenerate, importance_of, samples, squared_error

mx = pytest.importorskip("mlx.core")
mx.set_default_device(mx.cpu)

KINDS = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
AFFINE = [(kind, bits, group) for kind in KINDS for bits in BITS for group in GROUPS]
SOME = [("BF16", bits, 64) for bits in BITS] + [("F16", 4, 32), ("F32", 8, 128), ("BF16", 4, 128)]


def grid_of(kind, bits, group):
    return GroupedAffineGrid(bits, group, FLOAT_TYPES[kind])


def as_mx(array, kind):
    if array.dtype == np.uint16:
        return mx.array(array).view(mx.bfloat16)
    return mx.array(array)


def dequantize(parts, kind, bits, group):
    decoded = mx.dequantize(
        mx.array(parts["weight"]),
        as_mx(parts["scales"], kind),
        as_mx(parts["biases"], kind),
        group_size=group,
        bits=bits,
    )
    return np.array(decoded.astype(mx.float32))


def mx_round_trip(weights, kind, bits, group):
    parts = mx.quantize(mx.array(weights).astype(KINDS[kind]), group_size=group, bits=bits)
    return np.array(mx.dequantize(*parts, group_size=group, bits=bits).astype(mx.float32))


def as_source(weights, kind):
    """What a checkpoint of that type holds: both quantizers get the very same weights."""
    return widen(cast(weights, FLOAT_TYPES[kind]), FLOAT_TYPES[kind])


def same_bits(one, other):
    one = np.ascontiguousarray(one, np.float32).view(np.uint32)
    return np.array_equal(one, np.ascontiguousarray(other, np.float32).view(np.uint32))


@pytest.mark.parametrize(("kind", "bits", "group"), AFFINE)
@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (5, 3), (700, 4)])
def test_decode_is_mx_dequantize(kind, bits, group, rows, groups):
    grid = grid_of(kind, bits, group)
    shape = (rows, groups * group)
    weights = np.random.default_rng(0).standard_t(3, shape).astype(np.float32)
    parts = grid.encode(weights)
    layout = grid.layout(shape)
    assert {key: (part.dtype, part.shape) for key, part in parts.items()} == {
        key: (part.dtype, part.shape) for key, part in layout.items()
    }
    assert same_bits(grid.decode(parts, shape[1]), dequantize(parts, kind, bits, group))


@pytest.mark.parametrize(("kind", "bits", "group"), AFFINE)
def test_we_decode_what_mx_encodes(kind, bits, group):
    weights = samples(8)["student"][:, :640]
    theirs = mx.quantize(mx.array(weights).astype(KINDS[kind]), group_size=group, bits=bits)
    raw = [part.view(mx.uint16) if part.dtype == mx.bfloat16 else part for part in theirs]
    names = ("weight", "scales", "biases")
    parts = {name: np.array(part) for name, part in zip(names, raw, strict=True)}
    decoded = grid_of(kind, bits, group).decode(parts, 640)
    assert same_bits(decoded, dequantize(parts, kind, bits, group))


@pytest.mark.parametrize("bits", BITS)
@settings(max_examples=40)
@given(data=st.data())
def test_packing_against_a_slow_packer(bits, data):
    rows = data.draw(st.integers(1, 3))
    columns = 32 * data.draw(st.integers(1, 5))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = generator.integers(0, 1 << bits, (rows, columns)).astype(np.int16)
    words = pack_bits(codes, bits)
    assert words.shape == (rows, columns * bits // 32)
    for row in range(rows):
        stream = sum(int(code) << (bits * i) for i, code in enumerate(codes[row]))
        assert words[row].astype("<u4").tobytes() == stream.to_bytes(columns * bits // 8, "little")
    assert np.array_equal(unpack_bits(words, bits), codes)


@pytest.mark.parametrize(("kind", "bits", "group"), SOME)
def test_affine_contract(kind, bits, group):
    grid = grid_of(kind, bits, group)
    weights = samples(5)["laplace"]
    levels = grid.fit(weights)
    assert levels.scale.shape == levels.offset.shape == (5, 768 // group)
    codes = nearest_codes(weights, levels, grid)
    parts = grid.pack(codes, levels)
    encoded = grid.encode(weights)
    assert all(np.array_equal(parts[name], encoded[name]) for name in encoded)
    again, unpacked = grid.unpack(parts, 768)
    assert np.array_equal(again, codes)
    assert same_bits(unpacked.scale, levels.scale)
    assert same_bits(unpacked.offset, levels.offset)


@pytest.mark.parametrize(("kind", "bits", "group"), SOME)
def test_bands_do_not_show(kind, bits, group):
    grid = grid_of(kind, bits, group)
    weights = np.random.default_rng(2).standard_normal((700, 512)).astype(np.float32)
    whole = grid.encode(weights)
    for row in range(0, 700, 61):
        for name, part in grid.encode(weights[row : row + 1]).items():
            assert np.array_equal(part[0], whole[name][row])


@pytest.mark.parametrize(("kind", "bits", "group"), AFFINE)
def test_no_worse_than_mx_quantize(kind, bits, group):
    grid = grid_of(kind, bits, group)
    for sample, weights in samples(48).items():
        source = as_source(weights, kind)
        theirs = mx_round_trip(source, kind, bits, group)
        ours = grid.decode(grid.encode(source), 768)
        assert squared_error(ours, source) <= 0.97 * squared_error(theirs, source), sample
        rows = ((ours.astype(np.float64) - source) ** 2).sum(1)
        assert (rows <= ((theirs.astype(np.float64) - source) ** 2).sum(1)).all(), sample


@pytest.mark.parametrize(("kind", "bits", "group"), SOME)
def test_importance_lowers_the_weighted_error(kind, bits, group):
    grid = grid_of(kind, bits, group)
    importance = importance_of()
    for sample, weights in samples(48).items():
        weighted = grid.decode(grid.encode(weights, importance), 768)
        plain = grid.decode(grid.encode(weights), 768)
        ratio = squared_error(weighted, weights, importance) / squared_error(
            plain, weights, importance
        )
        assert ratio < (0.95 if bits < 8 else 1.01), (sample, ratio)


@pytest.mark.parametrize(("kind", "bits", "group"), AFFINE)
def test_degenerate_groups(kind, bits, group):
    grid = grid_of(kind, bits, group)
    for sample, weights in degenerate().items():
        source = as_source(weights, kind)
        ours = grid.decode(grid.encode(source), 768)
        assert np.isfinite(ours).all(), sample
        theirs = mx_round_trip(source, kind, bits, group)
        energy = squared_error(np.zeros_like(source), source)
        wanted = squared_error(theirs, source) + 1e-6 * energy
        assert squared_error(ours, source) <= wanted, sample
        if sample == "zero":
            assert not ours.any()


@pytest.mark.parametrize("name", list(GRIDS))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(name, value):
    weights = np.ones((2, 256), np.float32)
    weights[1, 200] = value
    with pytest.raises(ValueError, match="finite"):
        GRIDS[name].encode(weights)


@pytest.mark.parametrize("bits", BITS)
def test_weights_too_large_for_the_parameters(bits):
    weights = np.zeros((1, 64), np.float32)
    weights[0, :2] = 65504, -65504
    with pytest.raises(ValueError, match="BF16 or F32"):
        grid_of("F16", bits, 64).encode(weights)
    for kind in ("BF16", "F32"):
        grid = grid_of(kind, bits, 64)
        decoded = grid.decode(grid.encode(weights), 64)
        assert np.abs(decoded - weights).max() < 0.4 * 65504
        huge = weights * np.float32(1e33)
        assert np.isfinite(grid.decode(grid.encode(huge), 64)).all()


def test_shapes_that_mlx_does_not_have():
    with pytest.raises(ValueError, match="7 bits"):
        GroupedAffineGrid(7, 64, FLOAT_TYPES["BF16"])
    with pytest.raises(ValueError, match="groups of 16"):
        GroupedAffineGrid(4, 16, FLOAT_TYPES["BF16"])
    with pytest.raises(ValueError, match="whole blocks"):
        grid_of("BF16", 4, 64).encode(np.ones((2, 96), np.float32))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16"])
def test_floats_are_mx_casts(name):
    weights = np.random.default_rng(0).standard_normal((33, 65)).astype(np.float32)
    grid = GRIDS[name]
    parts = grid.encode(weights)
    (layout,) = grid.layout(weights.shape).values()
    assert parts["weight"].shape == layout.shape and parts["weight"].dtype == layout.dtype
    theirs = np.array(mx.array(weights).astype(KINDS[name]).astype(mx.float32))
    assert same_bits(grid.decode(parts, 65), theirs)


@pytest.mark.parametrize(("kind", "bits", "group"), SOME)
def test_zero_is_a_level_of_groups_around_zero(kind, bits, group):
    """Without that, a group's many small weights would all be off by the same amount."""
    weights = as_source(np.random.default_rng(3).standard_t(3, (64, 4 * group)), kind)
    weights = weights.astype(np.float32)
    weights[:, ::7] = 0
    grid = grid_of(kind, bits, group)
    codes, levels = grid.unpack(grid.encode(weights), weights.shape[1])
    zeros = (weights == 0).reshape(64, -1, group)
    scale = np.abs(levels.scale)[..., None]
    there = levels.scale[..., None] * codes.reshape(64, -1, group) + levels.offset[..., None]
    # The offset -scale * code is itself stored in `kind`.
    slack = {"BF16": 2.0**-8, "F16": 2.0**-11, "F32": 2.0**-23}[kind]
    miss = np.abs(there) / np.maximum(scale, np.abs(levels.offset)[..., None])
    assert miss[zeros].max() <= slack
