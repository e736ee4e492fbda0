"""KL divergence of many variants of the head's inputs from the original's, in bounded memory.

The vocabulary is taken in bands. With p the original's probabilities and d the difference of a
variant's logits to the original's, the divergence of a position is

    D = Σ p log(p / q) = log Σ p e^d - Σ p d = log(1 + Σ p (e^d - 1)) - Σ p d

so that both sums are of the order of d, and a divergence of 1e-8 is not lost in rounding; and no
more than the two sums need be kept from band to band.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.threads import for_each, multiply
from phiquant.phi.weights import Floats, WeightSource, row_bands

TOKENS = 64
"""Tokens that one core works on at a time."""

LOGITS = 1 << 24
"""Logits that are held at a time, where tokens are many: 64 MiB."""

Nats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Inputs of the head (variants, tokens, hidden), and the source of each variant's head."""

    hidden: Floats
    sources: Sequence[WeightSource]


def divergences(
    source: WeightSource,
    hidden: Floats,
    candidates: Candidates,
    advance: Callable[[int], None] = lambda work: None,
) -> Nats:
    """The candidates' KL divergences in nats (variants, tokens) from the head of `source` on
    `hidden`.

    `hidden` is (tokens, hidden), the original's inputs. The head is read twice. `advance` is
    called with the multiplications by weights that were done.
    """
    tops, totals = normalisers(source, hidden)
    name = source.architecture.head_name
    count, tokens = candidates.hidden.shape[:2]
    growth, drift = np.zeros((2, count, tokens))
    for first, last in row_bands(source.architecture.vocabulary_size, hidden.shape[1]):
        plain = source.weight(name, first, last)
        runs = []
        for variants in _alike(candidates.sources, max(1, positions(len(plain)) // tokens)):
            own = candidates.sources[variants.start]
            runs.append((variants, plain if own is source else own.weight(name, first, last)))
        for here in slices(tokens, len(plain)):
            logits = logits_of(hidden[here], plain)
            shares = np.exp(logits - tops[here, None]) / totals[here, None].astype(np.float32)
            for variants, weight in runs:
                states = candidates.hidden[variants, here]
                others = logits_of(states.reshape(-1, states.shape[-1]), weight)
                moved = _moments(others.reshape(-1, *logits.shape), logits, shares)
                growth[variants, here] += moved[0]
                drift[variants, here] += moved[1]
                advance(len(others) * weight.size)
            advance(2 * len(logits) * plain.size)
    return np.maximum(np.log1p(growth) - drift, 0)


def _alike(sources: Sequence[WeightSource], most: int) -> Iterator[slice]:
    """Runs of at most `most` variants with the same head."""
    first = 0
    while first < len(sources):
        last = first + 1
        while last < min(first + most, len(sources)) and sources[last] is sources[first]:
            last += 1
        yield slice(first, last)
        first = last


def normalisers(source: WeightSource, hidden: Floats) -> tuple[Floats, Nats]:
    """The greatest logit of every token, and Σ exp(logit - greatest)."""
    name = source.architecture.head_name
    tops = np.full(len(hidden), -np.inf, np.float32)
    totals = np.zeros(len(hidden))
    for first, last in row_bands(source.architecture.vocabulary_size, hidden.shape[1]):
        weight = source.weight(name, first, last)
        for here in slices(len(hidden), len(weight)):
            _take_in(logits_of(hidden[here], weight), tops[here], totals[here])
    return tops, totals


def positions(rows: int) -> int:
    """At how many positions so many rows of the head give LOGITS logits."""
    return max(TOKENS, LOGITS // rows)


def slices(tokens: int, rows: int) -> Iterator[slice]:
    """Slices of the tokens of which `rows` rows of the head make at most LOGITS logits."""
    step = positions(rows)
    for first in range(0, tokens, step):
        yield slice(first, min(first + step, tokens))


def _take_in(logits: Floats, tops: Floats, totals: Nats) -> None:
    """Bring `tops` and `totals` up to date with a band of `logits`, which is overwritten."""

    def work(first: int) -> None:
        here = slice(first, first + TOKENS)
        part = logits[here]
        higher = np.maximum(tops[here], part.max(axis=1))
        with np.errstate(over="ignore", invalid="ignore"):
            part -= higher[:, None]
            np.exp(part, out=part)
            totals[here] *= np.exp(np.float64(1) * tops[here] - higher)
            totals[here] += part.sum(axis=1, dtype=np.float64)
        tops[here] = higher

    for_each(range(0, len(logits), TOKENS), work)


def logits_of(hidden: Floats, weight: Floats) -> Floats:
    """Logits (tokens, rows) of `hidden` (tokens, hidden) for some rows of the head."""
    logits = np.empty((len(hidden), len(weight)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        multiply(hidden, weight, logits)
    return logits


def _moments(others: Floats, logits: Floats, shares: Floats) -> tuple[Nats, Nats]:
    """Σ p (e^d - 1) and Σ p d of a band, (variants, tokens) each; `others` is overwritten."""
    growth, drift = np.empty((2, *others.shape[:2]))

    def work(item: tuple[int, int]) -> None:
        variant, first = item
        part = slice(first, first + TOKENS)
        moved, weighing = others[variant, part], shares[part]
        with np.errstate(over="ignore", invalid="ignore"):
            moved -= logits[part]
            drift[variant, part] = np.vecdot(weighing, moved)
            np.exp(moved, out=moved)
            moved -= 1
            growth[variant, part] = np.vecdot(weighing, moved)

    starts = range(0, others.shape[1], TOKENS)
    for_each([(variant, first) for variant in range(len(others)) for first in starts], work)
    return growth, drift
