"""Feedback by means, against the least-squares problem that it solves column by column."""

import numpy as np
import pytest

from phiquant.quantization.affine import nearest_codes
from phiquant.quantization.feedback.means import (
    LEAST,
    MeanFeedback,
    codes_with_means,
    encode_for,
)
from phiquant.quantization.inputs import Inputs
from phiquant.targets.gguf.grids import GRIDS as GGUF
from phiquant.targets.mlx.formats import GRIDS as MLX
from phiquant.targets.onnx.formats import GRIDS as ONNX
from phiquant.targets.openvino.formats import GRIDS as OPENVINO

GRIDS = {
    "gguf Q4_0": GGUF["Q4_0"],
    "gguf Q5_1": GGUF["Q5_1"],
    "gguf Q8_0": GGUF["Q8_0"],
    "gguf Q2_K": GGUF["Q2_K"],
    "gguf Q4_K": GGUF["Q4_K"],
    "gguf Q6_K": GGUF["Q6_K"],
    "mlx 4bit-g64 BF16": MLX["4bit-g64 BF16"],
    "onnx int4-b32 F32": ONNX["int4-b32 F32"],
    "openvino i4 g64": OPENVINO["i4 g64"],
    "openvino u4 g32": OPENVINO["u4 g32"],
}


def problem(grid, rows=7, steadiness=1.0):
    """Weights, and inputs of which some hardly vary and some vary around 0."""
    columns = 3 * 64 if grid.block <= 64 else 2 * grid.block
    random = np.random.default_rng(3)
    sizes = random.lognormal(0, 1, columns)
    means = random.normal(size=columns) * sizes * steadiness
    squares = means**2 + (random.uniform(0.3, 1, columns) * sizes) ** 2
    weights = random.normal(size=(rows, columns)).astype(np.float32)
    return weights, Inputs(squares.astype(np.float32), means.astype(np.float32))


def moment_of(inputs):
    """E[x xᵀ] of channels that are independent around their means."""
    means = inputs.means.astype(np.float64)
    variances = np.maximum(inputs.squares - means**2, LEAST * inputs.squares)
    return np.diag(variances) + np.outer(means, means)


def column_by_column(weights, levels, grid, moment, order):
    """Each column to the level nearest to where all columns left would do their best together."""
    moment = moment[np.ix_(order, order)]
    weights = weights[:, order]
    groups = np.array(order) // grid.group
    scale, offset = (each[:, groups].astype(float) for each in (levels.scale, levels.offset))
    low, high = grid.code_range
    codes, errors = np.empty(weights.shape, int), np.zeros(weights.shape)
    for turn in range(len(order)):
        pulls = -moment[turn:, :turn] @ errors[:, :turn].T
        wanted = weights[:, turn] - np.linalg.solve(moment[turn:, turn:], pulls)[0]
        codes[:, turn] = np.rint((wanted - offset[:, turn]) / scale[:, turn]).clip(low, high)
        errors[:, turn] = weights[:, turn] - (scale[:, turn] * codes[:, turn] + offset[:, turn])
    return codes[:, np.argsort(order)]


def cost(errors, inputs):
    return np.einsum("rj,jk,rk->r", errors, moment_of(inputs), errors)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_codes_are_those_of_the_least_squares_column_by_column(grid):
    weights, inputs = problem(grid)
    levels = grid.fit(weights, inputs.squares)
    feedback = MeanFeedback.of(inputs.squares, inputs.means)
    assert np.all(np.diff(inputs.squares[feedback.order]) <= 0)
    codes = codes_with_means(weights, levels, feedback, grid)
    expected = column_by_column(weights, levels, grid, moment_of(inputs), feedback.order)
    # The last bits of a sum decide where two levels are equally near; the rest of a row follows.
    assert (codes == expected).all(axis=1).mean() >= 0.7


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_what_all_tokens_have_in_common_errs_less(grid):
    weights, inputs = problem(grid, rows=64)
    width = weights.shape[1]
    nearest = grid.decode(grid.encode(weights, inputs.squares), width) - weights
    errors = grid.decode(encode_for(grid, weights, inputs), width) - weights
    common = np.square(errors @ inputs.means).mean(), np.square(nearest @ inputs.means).mean()
    assert common[0] < 0.05 * common[1]
    assert cost(errors, inputs).sum() < 0.9 * cost(nearest, inputs).sum()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_inputs_around_zero_leave_the_nearest_codes(grid):
    weights, inputs = problem(grid, steadiness=0.0)
    levels = grid.fit(weights, inputs.squares)
    codes = codes_with_means(weights, levels, MeanFeedback.of(inputs.squares, inputs.means), grid)
    assert np.array_equal(codes, nearest_codes(weights, levels, grid))


def test_steady_channels_make_good_and_silent_ones_stay():
    grid = OPENVINO["u4 g32"]
    weights, inputs = problem(grid, rows=64)
    squares, means = inputs.squares.copy(), inputs.means.copy()
    squares[:40] = np.square(means[:40])
    squares[40:50], means[40:50] = 0, 0
    levels = grid.fit(weights, squares)
    codes = codes_with_means(weights, levels, MeanFeedback.of(squares, means), grid)
    assert codes.min() >= grid.code_range[0] and codes.max() <= grid.code_range[1]
    nearest = nearest_codes(weights, levels, grid)
    assert np.array_equal(codes[:, 40:50], nearest[:, 40:50])
    decoded = [grid.decode(grid.pack(one, levels), weights.shape[1]) for one in (codes, nearest)]
    ours, plain = (np.square((one - weights) @ means).mean() for one in decoded)
    assert ours < 0.05 * plain


def test_without_means_and_without_codes_rounding_is_the_grids_own():
    weights, inputs = problem(GGUF["Q4_0"])
    for grid, met in ((GGUF["Q4_0"], Inputs(inputs.squares)), (GGUF["F16"], inputs)):
        expected = grid.encode(weights, inputs.squares)
        encoded = encode_for(grid, weights, met)
        assert all(np.array_equal(encoded[name], expected[name]) for name in expected)
    plain = encode_for(GGUF["Q4_0"], weights, None)
    for name, part in GGUF["Q4_0"].encode(weights).items():
        assert np.array_equal(plain[name], part)


def test_a_group_as_long_as_the_row_is_as_good_as_one_that_says_so():
    grid, spelt = OPENVINO["u4 channel"], OPENVINO["u4 channel"].over(192)
    weights, inputs = problem(OPENVINO["u4 g64"])
    actual, expected = (encode_for(one, weights, inputs) for one in (grid, spelt))
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)


def test_inputs_follow_the_channels_as_these_are_scaled():
    random = np.random.default_rng(8)
    seen, factors = random.normal(1, 1, (50, 6)), random.uniform(0.5, 2, 6)
    inputs = Inputs(np.square(seen).mean(axis=0), seen.mean(axis=0))
    scaled = inputs.scaled(factors)
    np.testing.assert_allclose(scaled.squares, np.square(seen * factors).mean(axis=0))
    np.testing.assert_allclose(scaled.means, (seen * factors).mean(axis=0))
    assert Inputs(inputs.squares).scaled(factors).means is None
