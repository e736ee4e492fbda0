"""The shipped table of losses: whole, in order, and with a row for all that is on offer."""

from math import isfinite

import pytest

from phiquant.devices.engines import engines
from phiquant.phi.family import family
from phiquant.recipe import Recipe
from phiquant.recommendation import losses
from phiquant.recommendation.losses import DemoRow, demo_rows, loss_of, planned_layer_bits
from phiquant.targets.table import target, targets

PHI = family()["Phi-4-mini-instruct"]


def test_every_type_that_is_on_offer_was_measured():
    offered = {
        (engine.target, type)
        for engine in engines().values()
        for types in engine.types.values()
        for type in types
    }
    measured = {(name, row.type) for name, rows in demo_rows().items() for row in rows}
    assert measured == offered
    assert set(demo_rows()) == {one.name for one in targets()}


def test_figures_are_figures():
    for rows in demo_rows().values():
        assert [row.bits for row in rows] == sorted(row.bits for row in rows)
        for row in rows:
            assert 2 < row.bits <= 32
            assert isfinite(row.nats)
            assert 0 <= row.error <= row.nats / 4 or row.nats < 1e-9, row


def planned(engine, type):
    recipe = Recipe(engine.target, type=type, context=4096, options=engine.options)
    return target(engine.target).plan(PHI.architecture, PHI.survey, recipe.form)


def test_only_grids_that_the_demo_model_cannot_have_are_estimated():
    estimated = set()
    for engine in engines().values():
        for types in engine.types.values():
            for type in types:
                plan = planned(engine, type)
                loss = loss_of(PHI.source, plan)
                if loss.origin == "demo":
                    rows = [row for row in demo_rows()[plan.target] if row.nats == loss.nats]
                    assert any(abs(row.bits - planned_layer_bits(plan)) < 0.2 for row in rows)
                else:
                    estimated.add(type)
    assert estimated == {"Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "int4-sym-g128"}


@pytest.fixture
def three_rows(monkeypatch):
    rows = (
        DemoRow("a", 4.0, 1.0, 0.1),
        DemoRow("b", 6.0, 0.01, 0.001),
        DemoRow("c", 8.0, 0.0, 0.0),
    )
    monkeypatch.setattr(losses, "demo_rows", lambda: {"gguf": rows})


@pytest.mark.parametrize(
    ("bits", "nats", "words"),
    [
        (5.0, 0.1, "between the demo model's a and b"),
        (3.0, 4.0, "beyond the demo model's a"),
        (2.5, 8.0, "beyond the demo model's a"),
        (8.5, 0.5e-12, "beyond the demo model's c"),
    ],
)
def test_estimates_follow_from_bits(three_rows, monkeypatch, bits, nats, words):
    plan = target("gguf").plan(PHI.architecture, PHI.survey, Recipe("gguf").form)
    monkeypatch.setattr(losses, "planned_layer_bits", lambda plan: bits)
    loss = loss_of(PHI.source, plan)
    assert loss.nats == pytest.approx(nats, rel=1e-6)
    assert loss.origin == "interpolated"
    assert loss.told == f"not measured: expected from {bits:.2f} bits a weight, {words}"
