"""The choice among candidates, and why each other one was not it.

Of those that fit and are good enough (a loss that is `TOLERABLE`, or what was asked for): if any
reaches the speed that was asked for, the one with the least loss among those that do; losses below
`UNNOTICED` count as equal, and then the faster one is taken. If none reaches it, the fastest; a
sixth of its speed is given up for less loss. Ties go to the engine that the device's table names
first.
"""

from collections.abc import Sequence

from phiquant.planning.precision import PRECISIONS
from phiquant.recommendation.candidates import Candidate, Wish

UNNOTICED = 0.02
"""Nats a token: what INT8 loses on the demo model is below it in every format."""
TOLERABLE = 1.5
"""Nats a token on the demo model: what most 4-bit types lose there is far below it."""
SAME_SPEED = 1.1
"""Speeds are expected no more exactly than this."""
GIVEN_UP = 1.2
"""Where everything is slow: speed that is given up for less loss."""
ENOUGH_HEADROOM = 0.05
"""Share of the footprint that should be left for what no model of memory knows."""


def choose(found: Sequence[Candidate], wish: Wish) -> Candidate | None:
    """The best candidate; None if nothing that is good enough fits."""
    fitting = [one for one in found if roomy(one) and good_enough(one, wish)]
    fast = [one for one in fitting if one.speed >= wish.min_speed]
    if fast:
        least = min(noticed(one) for one in fast)
        return _fastest([one for one in fast if noticed(one) <= least], SAME_SPEED)
    return _fastest(fitting, GIVEN_UP)


def noticed(one: Candidate) -> float:
    """Its loss, all below what is noticed being equal."""
    return max(one.loss.nats, UNNOTICED)


def roomy(one: Candidate) -> bool:
    """Whether it fits with something left."""
    return one.headroom >= ENOUGH_HEADROOM * one.footprint.needed


def good_enough(one: Candidate, wish: Wish) -> bool:
    """Whether precision and loss are within the wish."""
    if wish.min_precision is not None:
        order = PRECISIONS.index
        if order(one.recipe.precision) < order(wish.min_precision):
            return False
    return one.loss.nats <= (TOLERABLE if wish.max_loss is None else wish.max_loss)


def _fastest(found: Sequence[Candidate], within: float) -> Candidate | None:
    """Of those about as fast as the fastest, the one with the least loss; else the first."""
    if not found:
        return None
    best = max(one.speed for one in found)
    return min((one for one in found if one.speed * within >= best), key=noticed)


def verdict(one: Candidate, chosen: Candidate | None, wish: Wish) -> str:
    """Why `one` is the choice, or why it is not."""
    if one is chosen:
        return "the choice"
    if not one.fits:
        return f"does not fit: {-one.headroom / 1e9:.1f} GB too large"
    if not roomy(one):
        return "fits with too little to spare"
    if not good_enough(one, wish):
        if wish.min_precision is None and wish.max_loss is None:
            return f"loses too much: {one.loss.nats:.2g} nats"
        return "below the quality asked for"
    assert chosen is not None  # else this one would have been
    return _against(one, chosen, wish)


def _against(one: Candidate, chosen: Candidate, wish: Wish) -> str:
    speeds = f"{one.speed:.3g} tokens/s against {chosen.speed:.3g}"
    if one.speed < wish.min_speed <= chosen.speed:
        return f"too slow: {speeds}"
    if chosen.speed >= wish.min_speed and noticed(one) > noticed(chosen):
        return f"loses more: {one.loss.nats:.2g} nats against {chosen.loss.nats:.2g}"
    if one.speed * SAME_SPEED < chosen.speed:
        unnoticed = one.loss.nats <= UNNOTICED and chosen.loss.nats <= UNNOTICED
        return f"slower: {speeds}" + (", for no loss that one would notice" if unnoticed else "")
    if noticed(one) > noticed(chosen):
        return f"loses more for {speeds}: {one.loss.nats:.2g} nats against {chosen.loss.nats:.2g}"
    return f"no better: {speeds}, and the device's table prefers {chosen.engine.name}"
