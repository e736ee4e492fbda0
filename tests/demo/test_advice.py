"""Which artifact is taken, by what was measured."""

from types import SimpleNamespace

import pytest

from phiquant.demo.advice import advise
from phiquant.demo.demonstration import Row
from phiquant.planning.precision import PRECISIONS


def row(name, precision, loss, speed=10.0, *, passed=True, ran=True):
    made = SimpleNamespace(plan=SimpleNamespace(target=name))
    verification = SimpleNamespace(
        passed=passed,
        figures=SimpleNamespace(mean=SimpleNamespace(value=loss)),
        answer=SimpleNamespace(tokens_per_second=speed, text="Because."),
    )
    return Row(precision, made, verification if ran else None)


def told(advice):
    """What is taken, what is like it, and what is taken where memory is short."""
    places = [(one.row.made.plan.target, one.row.precision) for one in (advice.best, *advice.alike)]
    small = advice.small and (advice.small.row.made.plan.target, advice.small.row.precision)
    return places[0], places[1:], small


def test_the_fastest_of_the_fewest_bits_whose_loss_goes_unnoticed():
    rows = [
        row("a", "int4", 0.5, 90),
        row("b", "int4", 0.1, 80),
        row("a", "int8", 0.01, 40),
        row("b", "int8", 0.001, 30),
        row("c", "int8", 0.03, 70),
        row("a", "fp16", 1e-6, 60),
    ]
    expected = ("a", "int8"), [("b", "int8"), ("c", "int8")], ("b", "int4")
    assert told(advise(rows)) == expected
    assert told(advise(sorted(rows, key=lambda one: -PRECISIONS.index(one.precision))))[0] == (
        "a",
        "int8",
    )


def test_without_such_a_loss_the_least_is_taken():
    rows = [row("a", "int4", 0.5), row("b", "int4", 0.3), row("c", "int8", 0.4)]
    assert told(advise(rows)) == (("b", "int4"), [("a", "int4")], None)


@pytest.mark.parametrize("change", [{"passed": False}, {"ran": False}])
def test_only_what_ran_and_passed_counts(change):
    rows = [row("a", "int8", 0.001, **change), row("b", "fp16", 1e-6)]
    assert told(advise(rows)) == (("b", "fp16"), [], None)
    assert advise(rows[:1]) is None
