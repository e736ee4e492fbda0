"""Channels re-scaled before the rounding, so that weights that share a step are of a size.

The channels named in `equivalence` may be scaled by any factor, exactly: column j of a linear layer
is divided by s_j, and what gives its input, the gains of the norm before it, the rows of the values
or those of the up half, is multiplied by s_j. The latter costs nothing: rows have steps of their
own, and gains are not rounded. How should s be chosen? Let c_j be the root mean square of column j,
with all rows brought to one size, and r_j that of its input. In a group of columns, the step goes
with the largest weight in it, and what its errors cost goes with

    max_j (c_j / s_j)² · Σ_j s_j² r_j²

If the largest were like the mean, Σ_j (c_j / s_j)² in place of the maximum, s_j² = c_j / r_j would
be the best (Cauchy and Schwarz); if one column were ever the largest, s_j = c_j. Columns of random
signs and sizes lie in between, and so is what is taken here, the geometric mean of both:

    s_j = (c_j³ / r_j)^¼

Sources: AWQ, https://arxiv.org/abs/2306.00978, which scales by inputs alone; cross-layer
equalization, https://arxiv.org/abs/1906.04721, by weights alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.channels import by_group, to_channels
from phiquant.phi.network.parts import Feed, Weight
from phiquant.phi.weights import Floats, WeightSource
from phiquant.quantization.inputs import Inputs

WIDEST = 16.0
"""No factor is further from the layer's mean than this, so that scaled weights still fit FP16."""
LEAST = 1e-3
"""Columns and inputs below this share of the layer's root mean square count as this large."""

HEIGHT = 64
"""Rows in a band that columns are measured in."""
BANDS = 16
"""Bands of a weight that are looked at. Over 1,024 rows a mean square is known to some 4%, and the
factor, in which its logarithm counts 3/8, to 2%."""

Factors = Mapping[str, Floats]
"""s (columns,) by the checkpoint name of the layer's weight."""


def even_factors(source: WeightSource, inputs: Mapping[str, Inputs]) -> dict[str, Floats]:
    """The factors of every layer whose inputs are known, by their mean squares.

    A tied head has none: its columns are the embedding's.
    """
    factors: dict[str, Floats] = {}
    for feed in source.architecture.network.feeds():
        weight = feed.into.weight
        if weight.name in inputs:
            factor = _even(_column_squares(source, weight), inputs[weight.name].squares)
            factors[weight.name] = _alike_in_group(feed, factor)
    return factors


def _even(columns: Floats, inputs: Floats) -> Floats:
    """The factors s for the mean squares c² and r², both (columns,); their geometric mean is 1."""
    logs = [
        np.log(np.maximum(squares, np.float32(LEAST**2) * squares.mean() + np.float32(1e-30)))
        for squares in (columns, inputs)
    ]
    chosen = (3 * logs[0] - logs[1]) / 8
    chosen -= chosen.mean()
    factor: Floats = np.exp(np.clip(chosen, -np.log(WIDEST), np.log(WIDEST))).astype(np.float32)
    return factor


def _column_squares(source: WeightSource, weight: Weight) -> Floats:
    """c²: the mean over rows of each weight's square, as a share of its row's mean square.

    Of a tall weight BANDS bands of rows are taken, as far apart as they can be.
    """
    rows, columns = weight.shape
    apart = max(HEIGHT, rows // BANDS)
    bands = [(first, min(first + HEIGHT, rows)) for first in range(0, rows, apart)]
    sums = np.empty((len(bands), columns), np.float32)

    def fill(at: int) -> None:
        squares = np.square(source.weight(weight.name, *bands[at]))
        sizes = squares.mean(axis=1)
        shares = np.divide(1, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        np.matmul(shares, squares, out=sums[at])

    for_each(range(len(bands)), fill)
    taken = sum(last - first for first, last in bands)
    mean: Floats = (sums.sum(axis=0, dtype=np.float64) / taken).astype(np.float32)
    return mean


def _alike_in_group(feed: Feed, factor: Floats) -> Floats:
    """The factors with columns that share a feeder sharing one: their geometric mean."""
    if feed.attention is None:
        return factor
    logs = by_group(feed, np.log(factor))
    return np.broadcast_to(np.exp(logs.mean(axis=1, keepdims=True)), logs.shape).reshape(-1)


@dataclass(frozen=True, slots=True)
class Fold:
    """The factors by which a weight's rows are multiplied and its columns divided."""

    rows: Floats | None = None
    columns: Floats | None = None

    def of(self, values: Floats, first: int = 0) -> Floats:
        """The re-scaled rows of the weight, of which `values` are those from `first` on."""
        if self.columns is None and self.rows is None:
            return values
        folded = values.copy() if self.columns is None else values / self.columns
        if self.rows is not None:
            folded *= self.rows[first : first + len(values), None]
        return folded

    def of_inputs(self, inputs: Inputs) -> Inputs:
        """The statistics of the weight's inputs, from those of the inputs before the re-scaling."""
        return inputs if self.columns is None else inputs.scaled(self.columns)


class Rescaled:
    """A network with `factors` folded in: other weights, the same function.

    Gains become numbers that bfloat16 can hold, and so every stored type; factors are what gains
    were really multiplied by.
    """

    def __init__(self, source: WeightSource, factors: Factors) -> None:
        self._source = source
        self._gains: dict[str, Floats] = {}
        self._folds: dict[str, Fold] = {}
        for feed in source.architecture.network.feeds():
            if feed.into.weight.name in factors:
                self._fold(feed, factors[feed.into.weight.name])

    @property
    def architecture(self) -> Architecture:
        """The dimensions that the weights belong to."""
        return self._source.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a weight: see `WeightSource`."""
        if name in self._gains:
            return self._gains[name][first:last]
        return self.fold(name).of(self._source.weight(name, first, last), first)

    def fold(self, name: str) -> Fold:
        """The factors that are folded into a matrix."""
        return self._folds.get(name, Fold())

    def gains(self, name: str) -> Floats | None:
        """The gains of a norm; None where they are the source's own."""
        return self._gains.get(name)

    def _fold(self, feed: Feed, factor: Floats) -> None:
        if feed.norm is not None:
            columns = self._fold_norm(feed.norm.gains.name, factor)
            self._folds[feed.into.weight.name] = Fold(columns=columns)
            return
        assert feed.layer is not None
        self._folds[feed.into.weight.name] = Fold(columns=factor)
        before = feed.layer.weight.name
        rows = np.ones(feed.layer.rows, np.float32)
        rows[-feed.rows :] = to_channels(feed, factor)
        self._folds[before] = Fold(rows, self.fold(before).columns)

    def _fold_norm(self, name: str, factor: Floats) -> Floats:
        """Scale the gains, and return the factors by which they were really scaled."""
        old = self._source.weight(name)
        new = _to_bfloat16(old * factor)
        scaled = (old != 0) & (new != 0)
        self._gains[name] = np.where(scaled, new, old)
        return np.divide(new, old, out=np.ones_like(old), where=scaled)


def _to_bfloat16(values: Floats) -> Floats:
    """The nearest numbers of 8 bits' precision, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)
