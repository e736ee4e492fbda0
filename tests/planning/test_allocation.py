"""Plans within budgets: exact, monotone, explained; a divergence is tried until it holds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.errors import RequestError
from phiquant.phi.network.parts import Role
from phiquant.planning.allocation import (
    EVALUATIONS,
    Offer,
    least_bytes,
    until_within,
    within_bits,
    within_bytes,
    within_divergence,
)
from phiquant.planning.plan import Plan, PlanRow

BITS = (2, 3, 4, 4.5, 6, 8, 16)


def row(name, weights=8000, bits=16.0):
    shape = (8, weights // 8)
    return PlanRow(name, name, Role.DOWN, 0, shape, f"{bits:g}", int(weights * bits / 8), "as is")


def offers_of(name, weights, sensitivity, bits=BITS):
    return [Offer(row(name, weights, one), sensitivity * 4.0**-one) for one in bits]


def model(sensitivities=(1.0, 50.0, 3.0), sizes=(8000, 16000, 24000)):
    names = [f"t{at}" for at in range(len(sizes))]
    plan = Plan("gguf", "F16", (row("norm", 80, 32), *map(row, names, sizes)))
    offers = dict(zip(names, map(offers_of, names, sizes, sensitivities), strict=True))
    return plan, offers


def predicted_of(plan, offers):
    return sum(
        next(one.effect for one in offers[row.output] if one.row.grid == row.grid)
        for row in plan.rows
        if row.output in offers
    )


def test_a_budget_of_bytes_is_kept_and_used():
    plan, offers = model()
    chosen = within_bytes(plan, offers, 30000)
    assert 28000 < chosen.plan.nbytes <= 30000
    assert chosen.predicted == pytest.approx(predicted_of(chosen.plan, offers))
    assert [row.output for row in chosen.plan.rows] == [row.output for row in plan.rows]
    assert chosen.plan.rows[0] == plan.rows[0]  # the norm has no offers
    bits = {row.output: float(row.grid) for row in chosen.plan.rows[1:]}
    assert bits["t1"] > bits["t2"] >= bits["t0"]  # the most sensitive gets most


def test_bits_per_weight_count_every_tensor():
    plan, offers = model()
    for bits in (2.5, 4.0, 5.37, 16.0):
        assert within_bits(plan, offers, bits).plan.bits_per_weight <= bits
    assert within_bits(plan, offers, 20).plan.bits_per_weight == plan.bits_per_weight


def test_too_small_a_budget_is_refused_with_the_least_possible():
    plan, offers = model()
    least = least_bytes(plan, offers)
    assert within_bytes(plan, offers, least).plan.nbytes == least
    with pytest.raises(RequestError, match=rf"at least .* \({least} bytes\)"):
        within_bytes(plan, offers, least - 1)
    with pytest.raises(RequestError, match=r"at least 2\.\d+ bits per weight .* found 1\.5"):
        within_bits(plan, offers, 1.5)
    best = within_bytes(plan, offers, 10**9).predicted
    assert within_divergence(plan, offers, best * 1.0001).plan.nbytes == plan.nbytes
    with pytest.raises(RequestError, match="the best has"):
        within_divergence(plan, offers, best / 2)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(1e-6, 100)), min_size=1, max_size=8))
def test_more_bytes_never_predict_more_divergence(tensors):
    sizes = [80 * size for size, _ in tensors]
    plan, offers = model([effect for _, effect in tensors], sizes)
    budgets = np.linspace(least_bytes(plan, offers), plan.nbytes, 12).astype(int)
    allocations = [within_bytes(plan, offers, int(budget)) for budget in budgets]
    predicted = [one.predicted for one in allocations]
    assert all(after <= before * (1 + 1e-12) for before, after in pairwise(predicted))
    for one in allocations:
        again = within_divergence(plan, offers, one.predicted * (1 + 1e-12))
        assert again.plan.nbytes <= one.plan.nbytes


def test_reasons_say_what_bytes_bought():
    plan, offers = model()
    chosen = within_bytes(plan, offers, 30000)
    for one in chosen.plan.rows[1:]:
        first, rest = one.reason.split(": ")
        assert first == f"{8 * one.nbytes / one.weights:.2f} bits"
        assert "nats saved per MB, the next step" in rest
    small = within_bytes(plan, offers, least_bytes(plan, offers)).plan
    assert all(": the least on offer, the next step" in row.reason for row in small.rows[1:])
    large = within_bytes(plan, offers, 10**9).plan
    assert all(row.reason.endswith("none better is on offer") for row in large.rows[1:])


def test_savings_are_nats_for_megabytes():
    offers = {"t0": [Offer(row("t0", 8000, 4), 0.5), Offer(row("t0", 8000, 8), 0.1)]}
    plan = Plan("gguf", "F16", (row("t0"),))
    reason = within_bytes(plan, offers, 4000).plan.rows[0].reason
    assert reason == "4.00 bits: the least on offer, the next step 1e+02"  # 0.4 nats for 4 KB


@pytest.mark.parametrize("bias", [0.3, 0.8, 1.0, 1.9, 6.0])
@pytest.mark.parametrize("nats", [0.004, 0.05, 0.6])
def test_a_divergence_is_checked_and_met(bias, nats):
    """The truth is off the prediction by a factor, and by some noise that differs from plan to
    plan; what is returned holds in truth, and is not far from the smallest that does."""
    plan, offers = model()
    tried = []

    def evaluate(one):
        tried.append(one)
        wobble = 1 + 0.05 * np.sin(one.nbytes)
        return bias * wobble * predicted_of(one, offers)

    chosen = until_within(plan, offers, nats, evaluate)
    assert chosen.measured == evaluate(chosen.plan) <= nats
    assert len(tried) <= EVALUATIONS + 2
    ideal = within_divergence(plan, offers, nats / bias).plan.nbytes
    assert chosen.plan.nbytes <= 1.12 * ideal


def test_a_divergence_that_nothing_meets_is_refused():
    plan, offers = model()
    with pytest.raises(RequestError, match=r"the best that gguf offers .* `max_kl` asks for"):
        until_within(plan, offers, 0.01, lambda plan: 0.02)


def test_a_prediction_that_says_no_is_not_believed():
    """Predicted out of reach, measured within it: the measurement counts."""
    plan, offers = model()
    best = within_bytes(plan, offers, 10**9).predicted
    chosen = until_within(plan, offers, best / 10, lambda one: predicted_of(one, offers) / 50)
    assert chosen.measured <= best / 10
