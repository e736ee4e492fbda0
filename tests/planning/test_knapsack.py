"""The exact knapsack against trying everything."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.planning.knapsack import choose, frontier, hull

ITEM = st.tuples(st.integers(0, 60), st.integers(1, 40))
CLASSES = st.lists(st.lists(ITEM, min_size=1, max_size=5), min_size=1, max_size=6)


def split(classes):
    values = [np.array([value for value, _ in one], float) for one in classes]
    weights = [np.array([weight for _, weight in one], float) for one in classes]
    return values, weights


def totals(classes, chosen):
    picked = [one[item] for one, item in zip(classes, chosen, strict=True)]
    return sum(value for value, _ in picked), sum(weight for _, weight in picked)


@settings(max_examples=400)
@given(CLASSES, st.integers(1, 200))
def test_the_choice_is_the_best_of_all(classes, capacity):
    fitting = [
        totals(classes, chosen)
        for chosen in product(*(range(len(one)) for one in classes))
        if totals(classes, chosen)[1] <= capacity
    ]
    choice = choose(*split(classes), capacity)
    if not fitting:
        assert choice is None
        return
    value, weight = totals(classes, choice)
    assert weight <= capacity
    assert value == min(fitting)[0]


@settings(max_examples=100)
@given(CLASSES)
def test_more_room_never_costs(classes):
    values, weights = split(classes)
    least = sum(one.min() for one in weights)
    most = sum(one.max() for one in weights)
    choices = [choose(values, weights, room) for room in np.linspace(least, most, 9)]
    costs = [totals(classes, one)[0] for one in choices]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == sum(one.min() for one in values)


def test_weights_need_not_be_whole():
    values = [np.array([3.0, 1.0]), np.array([4.0, 0.5])]
    weights = [np.array([0.25, 0.5]), np.array([0.125, 0.75])]
    assert choose(values, weights, 0.874) == (1, 0)
    assert choose(values, weights, 1.0) == (0, 1)
    assert choose(values, weights, 0.374) is None


def test_a_frontier_has_no_item_that_another_betters():
    one = frontier(np.array([5.0, 3.0, 3.0, 9.0, 1.0]), np.array([2.0, 4.0, 3.0, 3.0, 8.0]))
    assert one.items.tolist() == [0, 2, 4]


def test_a_hull_leaves_out_what_lies_above_a_line():
    weights, values = np.array([0.0, 1, 2, 3]), np.array([10.0, 9, 2, 0])
    assert hull(weights, values) == [0, 2, 3]


def test_a_model_of_many_layers_is_solved_at_once():
    """160 tensors of few shapes, 14 choices each with nearly convex gains: what plans look like."""
    random = np.random.default_rng(0)
    values, weights = [], []
    for size in np.repeat([3072 * 5120, 3072 * 3072, 3072 * 16384, 8192 * 3072], 40):
        bits = np.array(
            [2.25, 2.5, 3.25, 3.5, 4.125, 4.25, 4.5, 5.25, 5.5, 6.5, 6.6, 8.25, 8.5, 16]
        )
        scale = random.lognormal(0, 1.5)
        values.append(scale * 4.0**-bits * random.uniform(0.8, 1.25, len(bits)))
        weights.append(size * bits / 8)
    chosen = choose(values, weights, 4.3 / 8 * sum(w[-1] / 2 for w in weights))
    weight = sum(w[i] for w, i in zip(weights, chosen, strict=True))
    assert 0.999 < weight / (4.3 / 8 * sum(w[-1] / 2 for w in weights)) <= 1


def test_where_there_is_nothing_to_choose():
    assert choose([np.array([0.0])], [np.array([7.0])], 7) == (0,)
    assert choose([np.array([0.3])] * 7, [np.array([0.1])] * 7, 7 * 0.1) == (0,) * 7
    assert choose([np.zeros(3)] * 2, [np.array([3.0, 1.0, 2.0])] * 2, 5) == (1, 1)
