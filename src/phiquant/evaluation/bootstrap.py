"""Figures over the positions of a text, and their standard errors, from one block bootstrap.

Neighbouring positions share their context, so s / sqrt(n) would understate the error of a mean,
and quantiles have no such formula. Blocks of neighbouring positions are drawn with replacement
instead, and every figure is computed anew (Carlstein 1986,
https://doi.org/10.1214/aos/1176350057): the standard deviation over `RESAMPLES` draws, times
sqrt(blocks / (blocks - 1)) for the blocks' own mean being estimated, is the figure's error. Both
models are measured on the same draw, which is what makes the perplexity ratio so certain.

Blocks are the windows; where there are fewer than `FEWEST_BLOCKS` of them, equal parts of them,
no shorter than `SHORTEST_BLOCK`. Dependence beyond a block's length is not seen. The seed is
fixed; with 1000 resamples an error is itself known to 2%. The error of a maximum is a rough
guide: no draw can hold a larger value than was seen.

Quantiles are values that occurred: the least at which the share of positions not above it
reaches q (NumPy's `inverted_cdf`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.phi.weights import Doubles

Counts = npt.NDArray[np.int64]

FEWEST_BLOCKS = 32
SHORTEST_BLOCK = 16
RESAMPLES = 1000
_SEED = 20260101
_QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its standard error (NaN where the text is too short or the figure is not
    finite).
    """

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Positions:
    """The measurements at n neighbouring positions, in their order.

    The losses (nats) may be one fewer than the divergences: a window's last position predicts
    no token of the text.
    """

    divergence: Doubles
    agrees: Doubles
    reference_loss: Doubles
    candidate_loss: Doubles


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures over some positions; see `metrics.Divergence` for what they mean."""

    reference_perplexity: Estimate
    candidate_perplexity: Estimate
    perplexity_ratio: Estimate
    mean: Estimate
    median: Estimate
    quantile_99: Estimate
    quantile_999: Estimate
    maximum: Estimate
    top1_agreement: Estimate


def estimate(windows: Sequence[Positions]) -> Figures:
    """All figures over `windows`, at least one of which predicts a token."""
    sample = _Sample.of(_blocks(windows))
    count = len(sample.sizes)
    values = _figures(sample, np.ones(count, np.int64))
    errors = np.full(len(values), np.nan)
    if count > 1:
        random = np.random.default_rng(_SEED)
        draws = random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        drawn = np.array([_figures(sample, draw) for draw in draws])
        # An infinity in any draw leaves no standard deviation to speak of.
        known = np.isfinite(drawn).all(axis=0)
        with np.errstate(over="ignore"):  # perplexities of 1e200 do occur
            errors[known] = drawn[:, known].std(axis=0) * np.sqrt(count / (count - 1))
        errors[np.isinf(errors)] = np.nan
    return Figures(*(Estimate(float(v), float(e)) for v, e in zip(values, errors, strict=True)))


def _blocks(windows: Sequence[Positions]) -> list[Positions]:
    wanted = -(-FEWEST_BLOCKS // len(windows))
    blocks = []
    for window in windows:
        length = len(window.divergence)
        parts = min(wanted, max(1, length // SHORTEST_BLOCK))
        edges = [length * part // parts for part in range(parts + 1)]
        blocks += [_cut(window, edges[i], edges[i + 1]) for i in range(parts)]
    return blocks


def _cut(window: Positions, first: int, last: int) -> Positions:
    return Positions(
        window.divergence[first:last],
        window.agrees[first:last],
        window.reference_loss[first:last],
        window.candidate_loss[first:last],
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """What a draw of blocks needs to know of them: sums by block, and divergences in order."""

    sizes: Counts
    predictions: Counts
    divergence: Doubles
    agrees: Doubles
    reference_loss: Doubles
    candidate_loss: Doubles
    ascending: Doubles
    owners: npt.NDArray[np.intp]
    """The block of each value in `ascending`."""

    @classmethod
    def of(cls, blocks: Sequence[Positions]) -> "_Sample":
        sizes = np.array([len(block.divergence) for block in blocks])
        values = np.concatenate([block.divergence for block in blocks])
        order = np.argsort(values, kind="stable")
        return cls(
            sizes=sizes,
            predictions=np.array([len(block.reference_loss) for block in blocks]),
            divergence=np.array([block.divergence.sum() for block in blocks]),
            agrees=np.array([block.agrees.sum() for block in blocks]),
            reference_loss=np.array([block.reference_loss.sum() for block in blocks]),
            candidate_loss=np.array([block.candidate_loss.sum() for block in blocks]),
            ascending=values[order],
            owners=np.repeat(np.arange(len(blocks)), sizes)[order],
        )


def _figures(sample: _Sample, draw: Counts) -> Doubles:
    """The values of `Figures` in their order, each block counted as often as it was drawn."""
    taken = draw > 0  # 0 * inf would be NaN
    times = draw[taken]
    positions, predictions = times @ sample.sizes[taken], times @ sample.predictions[taken]
    up_to = np.cumsum(draw[sample.owners])
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        reference = times @ sample.reference_loss[taken] / predictions
        candidate = times @ sample.candidate_loss[taken] / predictions
        return np.array(
            [
                np.exp(reference),
                np.exp(candidate),
                np.exp(candidate - reference),
                times @ sample.divergence[taken] / positions,
                *(_at_share(sample.ascending, up_to, share) for share in (*_QUANTILES, 1.0)),
                times @ sample.agrees[taken] / positions,
            ]
        )


def _at_share(ascending: Doubles, up_to: Counts, share: float) -> float:
    """The least value that `share` of the positions do not exceed; `up_to` counts them."""
    # 0.99 * 100 must be 99, not the next double above it.
    needed = np.ceil(share * up_to[-1] - 1e-6)
    return float(ascending[np.searchsorted(up_to, needed)])
