"""Labels drawn from the model's own distribution, and the gradient that they start.

The Fisher information of a model's outputs is the second moment of the gradient of log p(label)
for a label drawn from p, not for the token that the text goes on with; the mean over labels is
then the curvature of the KL divergence from the model. With respect to the logits, the gradient
of -log p(label) is p - onehot(label).

The vocabulary is taken in bands, first for the sum of exponentials, then for the label, which
is where the running sum passes a uniform draw's share of that sum, and for p's way back.
"""

import numpy as np
import numpy.typing as npt

from phiquant.calibration.divergence import logits_of, normalisers, slices
from phiquant.host.threads import for_each, multiply
from phiquant.phi.weights import Doubles, Floats, WeightSource, row_bands

ROWS = 64
"""Tokens that one core works on at a time."""

Labels = npt.NDArray[np.int64]


def label_gradient(source: WeightSource, inputs: Floats, draws: Doubles) -> tuple[Floats, Labels]:
    """The gradient of -log p(label) with respect to the head's `inputs`, and the labels.

    `inputs` and the gradient are (tokens, hidden); `draws` (tokens,), uniform in [0, 1), choose
    the labels (tokens,). The head is read twice, and at most LOGITS logits exist at a time.
    """
    name, rows = source.architecture.head_name, source.architecture.vocabulary_size
    tops, totals = normalisers(source, inputs)
    gradient = np.zeros_like(inputs)
    labels = np.full(len(inputs), -1, np.int64)
    passed = np.zeros(len(inputs))
    for first, last in row_bands(rows, inputs.shape[1]):
        weight = source.weight(name, first, last)
        for here in slices(len(inputs), len(weight)):
            shares = logits_of(inputs[here], weight)
            sums = _normalise(shares, tops[here], totals[here])
            sums += passed[here]
            # What rounding leaves of the last draws falls to the last band.
            undrawn = labels[here] < 0
            drawn = np.flatnonzero(undrawn & ((draws[here] < sums) | (last == rows)))
            for at in drawn:
                token = here.start + at
                labels[token] = first + _place(shares[at], draws[token] - passed[token])
            passed[here] = sums
            part = np.empty_like(gradient[here])
            multiply(shares, weight.T, part)
            gradient[here] += part
            drawn += here.start
            gradient[drawn] -= weight[labels[drawn] - first]
    return gradient, labels


def _normalise(logits: Floats, tops: Floats, totals: Doubles) -> Doubles:
    """Turn `logits` (tokens, rows) into probabilities in place; returns their sums (tokens,)."""
    sums = np.empty(len(logits))

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        part = logits[here]
        part -= tops[here, None]
        np.exp(part, out=part)
        part /= totals[here, None].astype(np.float32)
        sums[here] = part.sum(axis=1, dtype=np.float64)

    for_each(range(0, len(logits), ROWS), work)
    return sums


def _place(shares: Floats, left: float) -> int:
    """The first place at which the running sum of `shares` (rows,) is above `left`."""
    sums = np.cumsum(shares, dtype=np.float64)
    return min(int(np.searchsorted(sums, left, side="right")), len(sums) - 1)
