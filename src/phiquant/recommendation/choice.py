"""The choice among candidates, and why each other one was not it.

Of those that fit and are good enough (a loss that is `TOLERABLE`, or what was asked for): if any
reaches the speed that was asked for, the one with the least loss among those that do; losses below
`UNNOTICED` count as equal, and then the faster one is taken. If none reaches it, the fastest; a
sixth of its speed is given up for less loss. Ties go to the engine that the device's table names
first.
"""

from collections.abc import Sequence

from phiquant.planning.precision import BITS, bits_of
from phiquant.recommendation.candidates import Candidate, Wish

UNNOTICED = 0.02
"""Nats a token: what INT8 loses on the demo model is below it in every format."""
TOLERABLE = 1.5
"""Nats a token on the demo model: what most 4-bit types lose there is far below it."""
SAME_SPEED = 1.1
"""Expected speeds that differ by less than this factor count as the same."""
GIVEN_UP = 1.2
"""Where no candidate is fast enough: the factor in speed that is given up for less loss."""
ENOUGH_HEADROOM = 0.05
"""Share of the footprint that must stay free, since predicted memory is not exact."""


def choose(candidates: Sequence[Candidate], wish: Wish) -> Candidate | None:
    """The best candidate; None if nothing that is good enough fits."""
    fitting = [
        candidate for candidate in candidates if roomy(candidate) and good_enough(candidate, wish)
    ]
    fast = [candidate for candidate in fitting if candidate.speed >= wish.min_speed]
    if fast:
        least = min(noticed(candidate) for candidate in fast)
        return _fastest(
            [candidate for candidate in fast if noticed(candidate) <= least], SAME_SPEED
        )
    return _fastest(fitting, GIVEN_UP)


def noticed(candidate: Candidate) -> float:
    """The candidate's loss; losses that nobody notices count as equal."""
    return max(candidate.loss.nats, UNNOTICED)


def roomy(candidate: Candidate) -> bool:
    """Whether the candidate fits with enough to spare."""
    return candidate.headroom >= ENOUGH_HEADROOM * candidate.footprint.needed


def good_enough(candidate: Candidate, wish: Wish) -> bool:
    """Whether precision and loss are within the wish."""
    if wish.min_precision is not None and bits_of(candidate.type) < BITS[wish.min_precision]:
        return False
    return candidate.loss.nats <= (TOLERABLE if wish.max_loss is None else wish.max_loss)


def _fastest(candidates: Sequence[Candidate], within: float) -> Candidate | None:
    """The candidate of least loss among those within the factor `within` of the fastest; of equals,
    the first.
    """
    if not candidates:
        return None
    best = max(candidate.speed for candidate in candidates)
    return min(
        (candidate for candidate in candidates if candidate.speed * within >= best), key=noticed
    )


def verdict(candidate: Candidate, chosen: Candidate | None, wish: Wish) -> str:
    """Why `candidate` is the choice, or why it is not."""
    if candidate is chosen:
        return "the choice"
    if not candidate.fits:
        return f"does not fit: {-candidate.headroom / 1e9:.1f} GB too large"
    if not roomy(candidate):
        return "fits with too little to spare"
    if not good_enough(candidate, wish):
        if wish.min_precision is None and wish.max_loss is None:
            return f"loses too much: {candidate.loss.nats:.2g} nats"
        return "below the quality asked for"
    assert chosen is not None  # else this one would have been
    return _against(candidate, chosen, wish)


def _against(candidate: Candidate, chosen: Candidate, wish: Wish) -> str:
    speeds = f"{candidate.speed:.3g} tokens/s against {chosen.speed:.3g}"
    losses = f"{candidate.loss.nats:.2g} nats against {chosen.loss.nats:.2g}"
    if candidate.speed < wish.min_speed <= chosen.speed:
        return f"too slow: {speeds}"
    if chosen.speed >= wish.min_speed and noticed(candidate) > noticed(chosen):
        return f"loses more: {losses}"
    if candidate.speed * SAME_SPEED < chosen.speed:
        unnoticed = candidate.loss.nats <= UNNOTICED and chosen.loss.nats <= UNNOTICED
        return f"slower: {speeds}" + (", for no loss that one would notice" if unnoticed else "")
    if noticed(candidate) > noticed(chosen):
        return f"loses more for {speeds}: {losses}"
    return f"no better: {speeds}, and the device's table prefers {chosen.engine.name}"
