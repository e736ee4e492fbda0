"""A plan whose tensors share a budget of bytes so that the output suffers least.

Every tensor that may be stored in several ways brings its offers, each with exact bytes and a
predicted effect on the output; effects of different tensors add up. One offer a tensor is then a
multiple-choice knapsack, whose optimum `knapsack` finds: the least predicted divergence within a
number of bytes, or the least bytes within a predicted divergence. So more bytes never predict
more divergence. What is chosen is checked on the rounded weights, and where a divergence was asked
for, the prediction is corrected by what was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from phiquant.errors import RequestError
from phiquant.planning.knapsack import Reals, choose, frontier, hull
from phiquant.planning.plan import Plan, PlanRow

EVALUATIONS = 6
"""Plans that are tried at most for a divergence."""

CLOSE = 0.9
"""The share of a permitted divergence from which on a plan is good enough."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to store a tensor: the row as it would be, and nats a token that it costs."""

    row: PlanRow
    effect: float


Offers = Mapping[str, Sequence[Offer]]
"""Offers by `PlanRow.output`; a row without any stays as it is planned."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A plan within its budget."""

    plan: Plan
    predicted: float
    """Nats a token, the sum of the tensors' effects."""
    measured: float | None = None
    """Nats a token as they were measured; None where they were not."""


def within_bits(plan: Plan, offers: Offers, bits: float) -> Allocation:
    """The least predicted divergence at `bits` per weight; RequestError if there is none."""
    check_bits(plan, offers, bits)
    return within_bytes(plan, offers, int(bits * plan.weights / 8))


def within_bytes(plan: Plan, offers: Offers, nbytes: int) -> Allocation:
    """The least predicted divergence within `nbytes` of tensors; RequestError if there is none."""
    check_bytes(plan, offers, nbytes)
    chosen = choose(_effects(offers), _sizes(offers), nbytes - _fixed(plan, offers))
    assert chosen is not None  # the smallest plan is one
    return _allocated(plan, offers, chosen)


def check_bits(plan: Plan, offers: Offers, bits: float) -> None:
    """RequestError where even the smallest plan has more than `bits` per weight."""
    least = least_bytes(plan, offers)
    if int(bits * plan.weights / 8) < least:
        raise RequestError(
            f"{plan.target} needs at least {8 * least / plan.weights:.3f} bits per weight for this "
            f"model, found {bits:g}; ask for more"
        )


def check_bytes(plan: Plan, offers: Offers, nbytes: int) -> None:
    """RequestError where even the smallest plan has more than `nbytes` of tensors."""
    least = least_bytes(plan, offers)
    if nbytes < least:
        raise RequestError(
            f"{plan.target} needs at least {least / 1e6:.1f} MB ({least} bytes) of tensors for "
            f"this model, found {nbytes / 1e6:.1f} MB; ask for more"
        )


def within_divergence(plan: Plan, offers: Offers, nats: float) -> Allocation:
    """The least bytes for which at most `nats` are predicted; RequestError if there are none."""
    chosen = choose(_sizes(offers), _effects(offers), nats)
    if chosen is None:
        raise RequestError(
            f"no plan for {plan.target} is predicted to stay within {nats:g} nats a token; the "
            f"best has {_least_effect(offers):.3g}"
        )
    return _allocated(plan, offers, chosen)


def checked(allocation: Allocation, evaluate: Callable[[Plan], float]) -> Allocation:
    """The allocation with the divergence that `evaluate` measures."""
    return replace(allocation, measured=evaluate(allocation.plan))


def until_within(
    plan: Plan, offers: Offers, nats: float, evaluate: Callable[[Plan], float]
) -> Allocation:
    """The least bytes found for which `evaluate` gives at most `nats` a token.

    At most EVALUATIONS plans are tried: first by prediction alone, then with the prediction
    scaled by what was measured, between the best that held and the least that did not. The
    prediction is proportional to the measurement within some ten percent, so the second or third
    is usually close. Raises RequestError where not even the best offers stay within `nats`.
    """
    least = _least_effect(offers)
    aim, held, failed = max(nats, least), None, None
    for _ in range(EVALUATIONS):
        tried = checked(within_divergence(plan, offers, aim), evaluate)
        assert tried.measured is not None
        if tried.measured <= nats:
            if held is None or tried.plan.nbytes < held.plan.nbytes:
                held = tried
            if tried.measured >= CLOSE * nats:
                break
        elif aim <= least:
            break
        else:
            failed = aim if failed is None else min(failed, aim)
        following = _next_aim(aim, tried.measured, nats, held, failed)
        following = max(following, least)
        if following == aim or (held is not None and following <= held.predicted):
            break
        aim = following
    return held or _best(plan, offers, nats, evaluate)


def _next_aim(
    aim: float, measured: float, nats: float, held: Allocation | None, failed: float | None
) -> float:
    """The prediction to try next: scaled by the measurement, between what held and failed."""
    proportional = aim * (nats / measured if measured > 0 else 4.0) * (1 + CLOSE) / 2
    if held is None or failed is None:
        return proportional
    if held.predicted < proportional < failed:
        return proportional
    return sqrt(max(held.predicted, 1e-12) * failed)


def _best(plan: Plan, offers: Offers, nats: float, evaluate: Callable[[Plan], float]) -> Allocation:
    """The plan of least divergence on offer; RequestError if even that diverges too far."""
    best = within_divergence(plan, offers, _least_effect(offers))
    measured = evaluate(best.plan)
    if measured > nats:
        raise RequestError(
            f"the best that {plan.target} offers for this model diverges by {measured:.3g} nats a "
            f"token, at {best.plan.nbytes / 1e6:.1f} MB; `max_kl` asks for {nats:g}"
        )
    return replace(best, measured=measured)


def least_bytes(plan: Plan, offers: Offers) -> int:
    """Bytes of tensors of the smallest plan."""
    return _fixed(plan, offers) + sum(int(sizes.min()) for sizes in _sizes(offers))


def _least_effect(offers: Offers) -> float:
    # A hair above the sum: the knapsack adds up in another order.
    return float(sum(effects.min() for effects in _effects(offers))) * (1 + 1e-9)


def _fixed(plan: Plan, offers: Offers) -> int:
    return sum(row.nbytes for row in plan.rows if row.output not in offers)


def _sizes(offers: Offers) -> list[Reals]:
    return [np.array([float(offer.row.nbytes) for offer in offered]) for offered in offers.values()]


def _effects(offers: Offers) -> list[Reals]:
    return [
        np.array([offer.effect for offer in offered], np.float64) for offered in offers.values()
    ]


def _allocated(plan: Plan, offers: Offers, chosen: Sequence[int]) -> Allocation:
    rows, predicted = {}, 0.0
    for (output, offered), at in zip(offers.items(), chosen, strict=True):
        rows[output] = replace(offered[at].row, reason=_reason(offered, offered[at]))
        predicted += offered[at].effect
    moved = tuple(rows.get(row.output, row) for row in plan.rows)
    return Allocation(replace(plan, rows=moved), predicted)


def _reason(offered: Sequence[Offer], chosen: Offer) -> str:
    """A sentence: what the last step up to the chosen offer saves for its bytes, and the next
    would.
    """
    last_step = _saving(offered, chosen, upwards=False)
    next_step = _saving(offered, chosen, upwards=True)
    bits = 8 * chosen.row.nbytes / chosen.row.weights
    saved = "the least on offer" if last_step is None else f"{last_step:.2g} nats saved per MB"
    following = "none better is on offer" if next_step is None else f"the next step {next_step:.2g}"
    return f"{bits:.2f} bits: {saved}, {following}"


def _saving(offered: Sequence[Offer], chosen: Offer, *, upwards: bool) -> float | None:
    """Nats a MB of the step between `chosen` and the nearest corner of the offers' hull."""
    best = frontier(
        np.array([offer.effect for offer in offered]),
        np.array([float(offer.row.nbytes) for offer in offered]),
    )
    corners = [offered[int(best.items[at])] for at in hull(best.weights, best.values)]
    size = chosen.row.nbytes
    if upwards:
        others = [corner for corner in corners if corner.row.nbytes > size][:1]
    else:
        others = [corner for corner in corners if corner.row.nbytes < size][-1:]
    if not others:
        return None
    return (chosen.effect - others[0].effect) / (others[0].row.nbytes - size) * 1e6
