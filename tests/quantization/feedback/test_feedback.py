"""Rounding with feedback, against GPTQ as its paper writes it: an inverse, and a slow loop."""

from dataclasses import dataclass

import numpy as np
import pytest

from phiquant.quantization.affine import decode_codes, nearest_codes
from phiquant.quantization.feedback.columns import Feedback, round_with_feedback, rounding_order
from phiquant.quantization.feedback.descent import errors_of, improve_codes, improve_parameters
from phiquant.quantization.feedback.factors import damped
from phiquant.quantization.feedback.rounder import Method, Rounder, shrunk
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.targets.gguf.grids import GRIDS as GGUF
from phiquant.targets.mlx.formats import GRIDS as MLX
from phiquant.targets.onnx.formats import GRIDS as ONNX
from phiquant.targets.openvino.formats import GRIDS as OPENVINO

SMALL = {
    "onnx int4-b32 F32": ONNX["int4-b32 F32"],
    "onnx int4-b16-sym F32": ONNX["int4-b16-sym F32"],
    "gguf Q4_0": GGUF["Q4_0"],
    "gguf Q4_1": GGUF["Q4_1"],
    "openvino i4 g64": OPENVINO["i4 g64"],
    "openvino u4 g32": OPENVINO["u4 g32"],
    "mlx 3bit-g32 BF16": MLX["3bit-g32 BF16"],
}
LARGE = {f"gguf {name}": GGUF[name] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")}
EVERY = SMALL | LARGE


@dataclass
class Seen:
    second: np.ndarray
    shift: np.ndarray | None = None
    behind: np.ndarray | None = None


def problem(columns, rows=24, tokens=400, seed=0):
    """Weights, and the second moment of correlated inputs of very different sizes."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(columns, columns)) / columns**0.5 + np.eye(columns)
    inputs = random.normal(size=(tokens, columns)) @ mixing
    inputs *= random.lognormal(0, 1, columns)
    moment = (inputs.T @ inputs / tokens).astype(np.float32)
    return random.normal(size=(rows, columns)).astype(np.float32), moment


def columns_of(grid):
    return 3 * 64 if grid.block <= 64 else 2 * grid.block


def cost(errors, moment):
    return np.einsum("rj,jk,rk->r", errors, moment.astype(np.float64), errors)


def gptq_as_published(weights, moment, order, levels, grid, damping):
    """GPTQ with an inverse: after each column, the rest moves by e / U_jj * U_j (eq. 3)."""
    group = grid.group
    work = weights[:, order].astype(np.float64)
    hessian = moment[np.ix_(order, order)].astype(np.float64)
    hessian += damping * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    codes = np.empty(weights.shape, int)
    low, high = grid.code_range
    for j, column in enumerate(order):
        scale = levels.scale[:, column // group].astype(np.float64)
        offset = levels.offset[:, column // group]
        code = np.rint((work[:, j] - offset) / np.where(scale == 0, 1, scale))
        codes[:, column] = np.clip(code, low, high)
        error = (work[:, j] - (scale * codes[:, column] + offset)) / upper[j, j]
        work[:, j:] -= error[:, None] * upper[j, j:]
    return codes


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_codes_are_those_of_gptq_as_published(grid):
    weights, moment = problem(columns_of(grid))
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    codes, levels = round_with_feedback(weights, feedback, grid)
    expected = gptq_as_published(weights, moment, feedback.order, levels, grid, 0.01)
    # Where a weight lies halfway between two levels, the last bits of a sum decide, and what
    # follows in that row may differ; such rows are few.
    same = (codes == expected).all(axis=1)
    assert same.mean() >= 0.8
    least = cost(weights - decode_codes(codes, levels, FLOAT_TYPES["F32"]), damped(moment, 0.01))
    other = weights - decode_codes(expected.astype(np.int16), levels, FLOAT_TYPES["F32"])
    assert least.sum() == pytest.approx(cost(other, damped(moment, 0.01)).sum(), rel=0.02)


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_the_layer_errs_less_than_with_nearest_codes(grid):
    weights, moment = problem(columns_of(grid))
    plain = grid.decode(grid.encode(weights), weights.shape[1])
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    codes, levels = round_with_feedback(weights, feedback, grid)
    ours = cost(errors_of(weights, codes, levels), moment).sum()
    assert ours < 0.75 * cost(weights - plain, moment).sum()


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_a_diagonal_moment_leaves_nothing_to_pass_on(grid):
    weights, moment = problem(columns_of(grid))
    moment = np.diag(np.diag(moment))
    codes, levels = round_with_feedback(weights, Feedback.of(damped(moment, 0.0), grid.block), grid)
    assert np.array_equal(codes, nearest_codes(weights, levels, grid))


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_neither_codes_nor_parameters_ever_cost_more(grid):
    weights, moment = problem(columns_of(grid))
    stiff = damped(moment, 0.01)
    codes, levels = round_with_feedback(weights, Feedback.of(stiff, grid.block), grid)
    errors = errors_of(weights, codes, levels)
    before = cost(errors, stiff)
    improve_codes(codes, errors, levels, (stiff, None), grid)
    between = cost(errors, stiff)
    assert np.all(between <= before * (1 + 1e-4))
    levels = improve_parameters(codes, errors, levels, stiff, grid)
    after = cost(errors, stiff)
    assert np.all(after <= between * (1 + 1e-4))
    assert after.sum() < between.sum() < before.sum()
    exact = errors_of(weights, codes, levels)
    assert np.allclose(errors, exact, atol=1e-4 * np.abs(weights).max())


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_a_coordinate_cannot_be_bettered_alone_once_descent_has_ended(grid):
    weights, moment = problem(columns_of(grid), rows=4)
    stiff = damped(moment, 0.01)
    codes, levels = round_with_feedback(weights, Feedback.of(stiff, grid.block), grid)
    errors = errors_of(weights, codes, levels)
    for _ in range(60):
        improve_codes(codes, errors, levels, (stiff, None), grid)
    least = cost(errors_of(weights, codes, levels), stiff)
    low, high = grid.code_range
    for column in range(0, weights.shape[1], 7):
        for step in (-1, 1):
            other = codes.copy()
            other[:, column] = np.clip(other[:, column] + step, low, high)
            assert np.all(cost(errors_of(weights, other, levels), stiff) >= least * (1 - 1e-4))


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_parameters_give_the_weights_back(grid):
    weights, moment = problem(grid.block)
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    codes, levels = round_with_feedback(weights, feedback, grid)
    regressors, parameters = grid.regressors(codes, levels), grid.parameters(levels)
    rebuilt = sum(p[:, None] * part for p, part in zip(parameters, regressors, strict=True))
    decoded = decode_codes(codes, levels, FLOAT_TYPES["F32"])
    assert np.allclose(rebuilt, decoded, rtol=1e-5, atol=1e-6)
    same = grid.with_parameters(levels, parameters)
    assert np.array_equal(same.scale, levels.scale)
    for name, part in same.stored.items():
        assert np.array_equal(part, levels.stored[name]), name


@pytest.mark.parametrize("grid", EVERY.values(), ids=EVERY)
def test_what_is_stored_decodes_to_the_errors_that_were_judged(grid):
    weights, moment = problem(columns_of(grid), rows=300)
    parts = Rounder(Seen(moment), grid.block, Method(damping=0.01, shrinkage=0.0)).round(
        weights, grid
    )
    decoded = grid.decode(parts, weights.shape[1])
    codes, levels = grid.unpack(parts, weights.shape[1])
    assert np.allclose(decoded, decode_codes(codes, levels, FLOAT_TYPES["F32"]), atol=0.03)
    plain = grid.decode(grid.encode(weights), weights.shape[1])
    assert cost(weights - decoded, moment).sum() < 0.7 * cost(weights - plain, moment).sum()


def test_the_correction_is_the_least_squares_answer_to_shifted_inputs():
    random = np.random.default_rng(1)
    true = random.normal(size=(2000, 24)) @ random.normal(size=(24, 24))
    seen = true + 0.3 * random.normal(size=true.shape)
    weight = random.normal(size=(8, 24)).astype(np.float32)
    moment = (seen.T @ seen / 2000).astype(np.float32)
    shift = ((true - seen).T @ seen / 2000).astype(np.float32)
    expected = np.linalg.lstsq(seen, true @ weight.T, rcond=None)[0].T
    moved = weight + weight @ Feedback.of(damped(moment, 0.0), 8).divided(shift)
    assert np.allclose(moved, expected, atol=1e-3)


@pytest.mark.parametrize("columns", [64, 256, 320, 1056])
def test_division_by_the_moment_is_the_inverse_whatever_the_width(columns):
    _, moment = problem(columns, tokens=200)
    feedback = Feedback.of(damped(moment, 0.03), 32)
    moments = np.random.default_rng(2).normal(size=(7, columns)).astype(np.float32)
    expected = np.linalg.solve(damped(moment, 0.03).astype(np.float64), moments.T).T
    np.testing.assert_allclose(
        feedback.divided(moments), expected, atol=2e-4 * np.abs(expected).max()
    )


def test_shrinking_takes_from_all_but_the_diagonal():
    moment = np.array([[4, 2, -2], [2, 9, 1], [-2, 1, 1]], np.float32)
    expected = np.array([[4, 1, -1], [1, 9, 0.5], [-1, 0.5, 1]], np.float32)
    assert np.array_equal(shrunk(moment, 0.5), expected)
    assert np.array_equal(shrunk(moment, 0.0), moment)


def test_what_few_tokens_show_is_better_shrunk():
    grid = GGUF["Q4_0"]
    random = np.random.default_rng(7)
    mixing = random.normal(size=(256, 256)) / 16 + np.eye(256)
    inputs = (random.normal(size=(200, 256)) @ mixing).astype(np.float32)
    true, sampled = (mixing.T @ mixing).astype(np.float32), inputs.T @ inputs / len(inputs)
    weights = random.normal(size=(96, 256)).astype(np.float32)

    def lost(shrinkage):
        parts = Rounder(Seen(sampled), grid.block, Method(shrinkage=shrinkage)).round(weights, grid)
        return cost(weights - grid.decode(parts, 256), true).sum()

    assert lost(0.3) < 0.95 * lost(0.0)


def test_blocks_stay_whole_and_the_most_important_comes_first():
    importance = np.array([1, 9, 1, 1, 5, 6, 7, 8, 0, 0, 0, 1], np.float32)
    order = rounding_order(importance, 4)
    assert order.tolist() == [7, 6, 5, 4, 1, 0, 2, 3, 11, 8, 9, 10]


def test_a_moment_of_zeros_still_rounds():
    grid = GGUF["Q4_0"]
    weights, _ = problem(64)
    parts = Rounder(Seen(np.zeros((64, 64), np.float32)), grid.block, Method()).round(weights, grid)
    assert np.isfinite(grid.decode(parts, 64)).all()
