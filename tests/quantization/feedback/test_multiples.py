"""Multiples of a block's fitted levels: a row gets those with which rounding it costs least."""

import numpy as np
import pytest
from test_feedback import SMALL, cost, problem

from phiquant.quantization.feedback.columns import Feedback, round_with_feedback
from phiquant.quantization.feedback.descent import errors_of
from phiquant.quantization.feedback.factors import damped
from phiquant.quantization.feedback.rounder import Method

MULTIPLES = Method().multiples
EVERY = pytest.mark.parametrize("grid", SMALL.values(), ids=SMALL)


@EVERY
def test_a_single_block_gets_the_best_of_all_trials(grid):
    """With one block the row's cost is the block's: each trial can be made on its own."""
    weights, moment = problem(grid.block)
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    stiff = damped(moment, 0.01)

    def costs(multiples):
        codes, levels = round_with_feedback(weights, feedback, grid, multiples)
        return cost(errors_of(weights, codes, levels), stiff), levels

    plain, fitted = costs(())
    least, _ = costs(MULTIPLES)
    alone = [plain]
    for multiple in MULTIPLES:
        fixed = _Fixed(grid, fitted, multiple)
        codes, levels = round_with_feedback(weights, feedback, fixed)
        alone.append(cost(errors_of(weights, codes, levels), stiff))
    assert np.allclose(least, np.min(alone, axis=0), rtol=1e-3)
    assert least.sum() < plain.sum()


@EVERY
def test_many_blocks_cost_less_on_the_whole(grid):
    weights, moment = problem(6 * grid.block, rows=64)
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    plain, tried = (
        cost(errors_of(weights, *round_with_feedback(weights, feedback, grid, multiples)), moment)
        for multiples in ((), MULTIPLES)
    )
    assert tried.sum() < plain.sum()


def test_zeros_stay_zeros():
    grid = SMALL["gguf Q4_0"]
    _, moment = problem(64)
    weights = np.zeros((3, 64), np.float32)
    feedback = Feedback.of(damped(moment, 0.01), grid.block)
    codes, levels = round_with_feedback(weights, feedback, grid, MULTIPLES)
    assert not errors_of(weights, codes, levels).any()


class _Fixed:
    """A grid that fits nothing: its levels are a multiple of given ones."""

    def __init__(self, grid, levels, multiple):
        parameters = [np.float32(multiple) * part for part in grid.parameters(levels)]
        self._levels = grid.with_parameters(levels, parameters)
        self.block, self.group, self.code_range = grid.block, grid.group, grid.code_range

    def fit(self, weights, importance):
        return self._levels
