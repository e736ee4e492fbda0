"""Rounding with feedback across rows, against its equation and a slow loop."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from phiquant.quantization.affine import decode_codes
from phiquant.quantization.feedback.columns import Feedback, round_with_feedback
from phiquant.quantization.feedback.descent import errors_of, improve_codes
from phiquant.quantization.feedback.factors import damped
from phiquant.quantization.feedback.rounder import ROWS, Method, Rounder
from phiquant.quantization.feedback.two_sided import RowFeedback
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.targets.gguf.grids import GRIDS as GGUF
from phiquant.targets.mlx.formats import GRIDS as MLX
from phiquant.targets.openvino.formats import GRIDS as OPENVINO

SOME = {
    "gguf Q4_0": GGUF["Q4_0"],
    "gguf Q4_K": GGUF["Q4_K"],
    "openvino u4 g32": OPENVINO["u4 g32"],
    "mlx 3bit-g32 BF16": MLX["3bit-g32 BF16"],
}


@dataclass
class Seen:
    second: np.ndarray
    shift: np.ndarray | None = None
    behind: np.ndarray | None = None


def correlated(size, seed, spread=1.0):
    """The second moment of correlated values of different sizes."""
    random = np.random.default_rng(seed)
    mixing = 0.7 * random.normal(size=(size, size)) / size**0.5 + np.eye(size)
    # A few directions that all share, as gradients have them.
    values = random.normal(size=(4 * size, size)) @ mixing
    values += random.normal(size=(4 * size, 3)) @ random.normal(size=(3, size))
    values *= random.lognormal(0, spread, size)
    return (values.T @ values / len(values)).astype(np.float32)


def problem(grid, rows, seed=0):
    columns = 192 if grid.block <= 64 else 2 * grid.block
    random = np.random.default_rng(seed)
    weights = random.normal(size=(rows, columns)).astype(np.float32)
    return weights, correlated(columns, seed + 1), correlated(rows, seed + 2, 0.5)


def cost(errors, inputs, outputs):
    """tr(G E H Eᵀ)."""
    e, h, g = (part.astype(np.float64) for part in (errors, inputs, outputs))
    return float(np.trace(g @ e @ h @ e.T))


def blocks_of(moment):
    """The diagonal blocks of a moment (rows, rows), padded."""
    count = -(-len(moment) // ROWS)
    blocks = np.zeros((count, ROWS, ROWS), np.float32)
    for index in range(count):
        part = moment[index * ROWS : (index + 1) * ROWS, index * ROWS : (index + 1) * ROWS]
        blocks[index, : len(part), : len(part)] = part
    return blocks


def test_the_factors_are_those_of_the_damped_moment():
    moment = correlated(30, 0)
    across = RowFeedback.of(moment, 0.5)
    diagonal = np.diagonal(moment)
    assert np.all(np.diff(diagonal[across.order]) <= 0)
    expected = moment[np.ix_(across.order, across.order)] + 0.5 * diagonal.mean() * np.eye(30)
    expected /= np.diagonal(expected).mean()
    np.testing.assert_allclose(across.moment, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(across.factors, np.triu(across.factors))
    assert np.array_equal(np.diagonal(across.factors), np.ones(30))
    centre = np.linalg.solve(across.factors, np.linalg.solve(across.factors, expected).T)
    np.testing.assert_allclose(centre, np.diag(np.diagonal(centre)), atol=1e-4)


def slow_codes(weights, feedback, levels, grid, across):
    """Weight by weight, with the sums of the equation written out."""
    along, r = feedback.factors.astype(float), across.astype(float)
    e, f, codes = np.zeros((3, *weights.shape))
    low, high = grid.code_range
    for j, column in enumerate(feedback.order):
        scales = levels.scale[:, column // grid.group].astype(float)
        offsets = levels.offset[:, column // grid.group].astype(float)
        for i, weight in enumerate(weights[:, column].astype(float)):
            due = sum(e[i, k] * along[k, j] for k in range(j))
            wanted = weight + due + sum(r[k, i] * f[k, j] for k in range(i))
            code = np.clip(np.rint((wanted - offsets[i]) / scales[i]), low, high)
            e[i, j] = weight - (scales[i] * code + offsets[i])
            f[i, j] = e[i, j] + due
            codes[i, column] = code
    return codes


@pytest.mark.parametrize("grid", SOME.values(), ids=SOME)
def test_codes_are_those_of_a_slow_loop(grid):
    weights, inputs, outputs = problem(grid, 7)
    feedback = Feedback.of(damped(inputs, 0.03), grid.block)
    across = RowFeedback.of(outputs, 0.3)
    rows = weights[across.order]
    codes, levels = round_with_feedback(rows, feedback, grid, (), across.factors)
    expected = slow_codes(rows, feedback, levels, grid, across.factors)
    ours = cost(errors_of(rows, codes, levels), damped(inputs, 0.03), across.moment)
    errors = rows - decode_codes(expected.astype(np.int16), levels, FLOAT_TYPES["F32"])
    # The last bits of a sum decide halfway between two levels, and what follows may then differ.
    assert (codes == expected).mean() > 0.9
    assert ours == pytest.approx(cost(errors, damped(inputs, 0.03), across.moment), rel=0.02)


@pytest.mark.parametrize("grid", SOME.values(), ids=SOME)
def test_no_code_can_be_bettered_alone_once_descent_has_ended(grid):
    weights, inputs, outputs = problem(grid, 6)
    stiff, feedback = damped(inputs, 0.03), Feedback.of(damped(inputs, 0.03), grid.block)
    across = RowFeedback.of(outputs, 0.3)
    rows = weights[across.order]
    codes, levels = round_with_feedback(rows, feedback, grid, (), across.factors)
    errors = errors_of(rows, codes, levels)
    costs = [cost(errors, stiff, across.moment)]
    for _ in range(60):
        improve_codes(codes, errors, levels, (stiff, across.moment), grid)
        costs.append(cost(errors_of(rows, codes, levels), stiff, across.moment))
    assert costs[1] < costs[0]
    assert np.all(np.diff(costs) <= 1e-5 * costs[0])
    np.testing.assert_allclose(errors, errors_of(rows, codes, levels), atol=1e-4)
    low, high = grid.code_range
    for row, column in zip([0, 1, 2, 3, 4, 5] * 4, range(0, rows.shape[1], 7), strict=False):
        for step in (-1, 1):
            other = codes.copy()
            other[row, column] = np.clip(other[row, column] + step, low, high)
            moved = cost(errors_of(rows, other, levels), stiff, across.moment)
            assert moved >= costs[-1] * (1 - 1e-5)


@pytest.mark.parametrize("rows", [40, ROWS + 30])
@pytest.mark.parametrize("grid", SOME.values(), ids=SOME)
def test_outputs_err_less_where_it_matters_than_with_rows_alone(grid, rows):
    weights, inputs, outputs = problem(grid, rows)
    method = Method(output_damping=0.1)
    alone = Rounder(
        Seen(inputs), grid.block, replace(method, output_damping=None), blocks_of(outputs)
    )
    both = Rounder(Seen(inputs), grid.block, method, blocks_of(outputs))
    costs = []
    for rounder in (alone, both):
        decoded = grid.decode(rounder.round(weights, grid), weights.shape[1])
        total = 0.0
        for first in range(0, rows, ROWS):
            here = slice(first, first + ROWS)
            total += cost((weights - decoded)[here], inputs, outputs[here, here])
        costs.append(total)
    assert costs[1] < 0.75 * costs[0]


@pytest.mark.parametrize("grid", SOME.values(), ids=SOME)
def test_outputs_that_are_all_worth_the_same_change_nothing(grid):
    weights, inputs, _ = problem(grid, ROWS + 30)
    method = Method(parameters=False)
    alone = Rounder(Seen(inputs), grid.block, method).round(weights, grid)
    even = blocks_of(np.float32(3e-7) * np.eye(len(weights), dtype=np.float32))
    both = Rounder(Seen(inputs), grid.block, method, even).round(weights, grid)
    for name, part in alone.items():
        assert np.array_equal(part, both[name]), name


def test_rows_beyond_the_output_moments_are_rounded_alone():
    grid = OPENVINO["u4 g32"]
    weights, inputs, outputs = problem(grid, 2 * ROWS)
    alone = Rounder(Seen(inputs), grid.block, Method()).round(weights, grid)
    both = Rounder(Seen(inputs), grid.block, Method(), blocks_of(outputs)[:1]).round(weights, grid)
    for name, part in alone.items():
        assert not np.array_equal(part[:ROWS], both[name][:ROWS])
        assert np.array_equal(part[ROWS:], both[name][ROWS:])


def test_outputs_that_are_worth_nothing_still_round():
    grid = GGUF["Q4_0"]
    weights, inputs, _ = problem(grid, 20)
    nothing = np.zeros((1, ROWS, ROWS), np.float32)
    parts = Rounder(Seen(inputs), grid.block, Method(), nothing).round(weights, grid)
    assert np.isfinite(grid.decode(parts, weights.shape[1])).all()


@pytest.mark.parametrize("start", [1, 40, ROWS - 1, ROWS, ROWS + 7])
def test_rows_from_anywhere_on_meet_the_moments_of_their_own_outputs(start):
    grid = OPENVINO["u4 g32"]
    weights, inputs, outputs = problem(grid, 2 * ROWS + 30)
    rounder = Rounder(Seen(inputs), grid.block, Method(), blocks_of(outputs))
    later = rounder.round(weights[start:], grid, start)
    for edge in range(0, len(weights), ROWS):
        here = slice(max(edge, start), edge + ROWS)
        if here.start < here.stop:
            own = blocks_of(outputs[here, here])
            alone = Rounder(Seen(inputs), grid.block, Method(), own).round(weights[here], grid)
            for name, part in alone.items():
                there = later[name][here.start - start : here.stop - start]
                assert np.array_equal(part, there), (name, edge)
