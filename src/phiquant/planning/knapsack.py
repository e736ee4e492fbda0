"""The multiple-choice knapsack, exactly: one item of each class, least value, limited weight.

Each class is reduced to its Pareto frontier. Relaxed (a mixture of neighbouring items is allowed
in one class), the optimum is greedy: the steps along the frontiers' convex hulls in the order of
value gained per weight. The exact optimum comes from lists of partial choices, class by class
(dynamic programming by dominance, Nemhauser and Ullmann 1969), from which all are dropped that
are dominated, or whose value plus the relaxed optimum of the remaining classes exceeds a
threshold. The threshold starts a little above the relaxed optimum of the whole and is widened
until a complete choice stays below it; that choice is then the optimum, for nothing cheaper has
been dropped. The relaxation is tight where classes are many, so lists stay short.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

FIRST_SLACK = 2.0**-20
"""The threshold's first distance from the relaxed optimum, as a share of the spread of values."""

ROUNDING = 2.0**-48
"""The relative difference that float64 sums may have when they are added up in another order."""


class Steps(NamedTuple):
    """Steps along convex hulls: weight added, value changed (below 0), and the class."""

    weight: Reals
    value: Reals
    owner: Indices


@dataclass(frozen=True, slots=True)
class _Class:
    """A Pareto frontier: weights rise, values fall. `items` are places in the original class."""

    weights: Reals
    values: Reals
    items: Indices


def choose(
    values: Sequence[Reals], weights: Sequence[Reals], capacity: float
) -> tuple[int, ...] | None:
    """An item of each class with the least total value, of a total weight within `capacity`.

    None if even the lightest items weigh more. Values and weights must be finite and not below
    0; sums are float64, exact for whole numbers below 2^48.
    """
    classes = [frontier(v, w) for v, w in zip(values, weights, strict=True)]
    least = sum(float(items.weights[0]) for items in classes)
    if least > capacity:
        return None
    capacity += ROUNDING * least
    # The classes with the most to choose come first, so that bounds tell early.
    order = sorted(range(len(classes)), key=lambda i: classes[i].values[-1] - classes[i].values[0])
    chosen = _search([classes[i] for i in order], capacity)
    places = dict(zip(order, chosen, strict=True))
    return tuple(int(classes[i].items[places[i]]) for i in range(len(classes)))


def frontier(values: Reals, weights: Reals) -> _Class:
    """The items that no lighter one betters, from the lightest to the best."""
    order = np.lexsort((values, weights))
    best = np.minimum.accumulate(values[order])
    kept = np.append(True, best[1:] < best[:-1])
    items = order[kept]
    return _Class(weights[items], values[items], items)


def hull(weights: Reals, values: Reals) -> list[int]:
    """The places of a frontier that lie on its lower convex hull, first and last included."""
    kept: list[int] = []
    for at in range(len(weights)):
        while len(kept) > 1 and _above(kept[-2], kept[-1], at, weights, values):
            kept.pop()
        kept.append(at)
    return kept


def _above(a: int, b: int, c: int, weights: Reals, values: Reals) -> bool:
    """Whether b lies on or above the line from a to c."""
    left = (values[b] - values[a]) * (weights[c] - weights[a])
    return bool(left >= (values[c] - values[a]) * (weights[b] - weights[a]))


def _search(classes: Sequence[_Class], capacity: float) -> list[int]:
    bounds = _relaxations(classes)
    spread = float(sum(items.values[0] - items.values[-1] for items in classes))
    relaxed = float(np.interp(capacity, bounds[0][0], bounds[0][1]))
    largest = float(sum(np.abs(items.values).max() for items in classes))
    slack = spread * FIRST_SLACK + largest * ROUNDING
    while True:
        chosen = _within(classes, capacity, bounds, relaxed + slack)
        if chosen is not None:
            return chosen
        assert slack <= 8 * (spread + largest), "the lightest items fit"
        slack *= 4


def _relaxations(classes: Sequence[_Class]) -> list[tuple[Reals, Reals]]:
    """For the classes from the first on, from the second on, and so forth: weights, and the least
    relaxed value within each.

    The last entry is for no classes at all.
    """
    steps = _steps(classes)
    relaxations = []
    for first in range(len(classes) + 1):
        rest = steps.owner >= first
        weight = sum(float(items.weights[0]) for items in classes[first:])
        value = sum(float(items.values[0]) for items in classes[first:])
        relaxations.append(
            (
                np.cumsum(np.append(weight, steps.weight[rest])),
                np.cumsum(np.append(value, steps.value[rest])),
            )
        )
    return relaxations


def _steps(classes: Sequence[_Class]) -> Steps:
    """All hulls' steps, those first that gain most for their weight."""
    weight, value, owner = [], [], []
    for at, items in enumerate(classes):
        corners = hull(items.weights, items.values)
        weight.append(np.diff(items.weights[corners]))
        value.append(np.diff(items.values[corners]))
        owner.append(np.full(len(corners) - 1, at))
    steps = Steps(np.concatenate(weight), np.concatenate(value), np.concatenate(owner))
    order = np.argsort(steps.value / steps.weight, kind="stable")
    return Steps(steps.weight[order], steps.value[order], steps.owner[order])


def _within(
    classes: Sequence[_Class],
    capacity: float,
    bounds: Sequence[tuple[Reals, Reals]],
    threshold: float,
) -> list[int] | None:
    """The best choice of a value up to `threshold`, None if there is none."""
    weights, values = np.zeros(1), np.zeros(1)
    trail: list[tuple[Indices, Indices]] = []
    for at, items in enumerate(classes):
        heavier = (weights[:, None] + items.weights).reshape(-1)
        dearer = (values[:, None] + items.values).reshape(-1)
        rest_weights, rest_values = bounds[at + 1]
        room = capacity - heavier
        bound = dearer + np.interp(room, rest_weights, rest_values)
        (open_,) = np.nonzero((room >= rest_weights[0]) & (bound <= threshold))
        if not len(open_):
            return None
        open_ = open_[np.lexsort((dearer[open_], heavier[open_]))]
        best = np.minimum.accumulate(dearer[open_])
        open_ = open_[np.append(True, best[1:] < best[:-1])]
        trail.append(np.divmod(open_, len(items.weights)))
        weights, values = heavier[open_], dearer[open_]
    state = int(np.argmin(values))
    chosen = []
    for before, item in reversed(trail):
        chosen.append(int(item[state]))
        state = int(before[state])
    return chosen[::-1]
