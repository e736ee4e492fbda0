"""When nothing fits: the nearest thing that does.

Three ways out, each in a sentence: a smaller precision than was asked for, a shorter context, or
another Phi.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from phiquant.devices.device import Device
from phiquant.phi.family import family
from phiquant.phi.outline import Outline
from phiquant.recommendation.candidates import Candidate, Wish, candidates
from phiquant.recommendation.choice import choose, good_enough, roomy

SHORTEST = 512
"""Tokens: a context below that is of little use."""


def nearest(
    outline: Outline, device: Device, wish: Wish, possible: Sequence[Candidate]
) -> Iterator[str]:
    """What would fit in place of what was asked for."""
    lesser = [candidate for candidate in possible if roomy(candidate)]
    if lesser:
        best = min(lesser, key=lambda candidate: candidate.loss.nats)
        yield (
            f"a smaller precision: {best.name} fits, with an expected loss of "
            f"{best.loss.nats:.2g} nats a token ({best.loss.told})"
        )
    shorter = _shorter(outline, device, wish)
    if shorter is not None:
        context, candidate = shorter
        yield f"a shorter context: {candidate.name} fits with `context={context}`"
    yield from _others(outline, device, wish)


def _shorter(outline: Outline, device: Device, wish: Wish) -> tuple[int, Candidate] | None:
    """The longest context, in steps of 512 tokens, at which something good enough fits."""
    low, high, best = 0, (wish.context - 1) // SHORTEST, None
    while low < high:
        middle = (low + high + 1) // 2
        asked = replace(wish, context=middle * SHORTEST, prompt=None)
        fitting = [
            candidate
            for candidate in candidates(outline, device, asked)[0]
            if roomy(candidate) and good_enough(candidate, asked)
        ]
        if fitting:
            low, best = middle, min(fitting, key=lambda candidate: candidate.loss.nats)
        else:
            high = middle - 1
    return (low * SHORTEST, best) if best is not None else None


def _others(outline: Outline, device: Device, wish: Wish) -> Iterator[str]:
    """A sentence for every other published Phi that would fit as asked."""
    for name, other in family().items():
        if name.lower() == outline.source.name.lower():
            continue
        if wish.context > other.architecture.max_positions:
            continue
        candidate = choose(candidates(other, device, wish)[0], wish)
        if candidate is not None:
            size = f"{candidate.footprint.needed / 1e9:.1f} GB"
            yield f"another Phi: {name} as {candidate.name} ({size} in use)"
