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

from phiquant.calibration.divergence import logits_of, normalisers
from phiquant.phi.threads import multiply
from phiquant.phi.weights import Floats, WeightSource, bands

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def label_gradient(source: WeightSource, inputs: Floats, draws: Doubles) -> tuple[Floats, Labels]:
    """The gradient of -log p(label) with respect to the head's `inputs`, and the labels.

    `inputs` and the gradient are (tokens, hidden); `draws` (tokens,), uniform in [0, 1), choose
    the labels (tokens,). The head is read twice, and never more than a band of logits exists.
    """
    name, rows = source.architecture.head_name, source.architecture.vocabulary_size
    tops, totals = normalisers(source, inputs)
    gradient = np.zeros_like(inputs)
    part = np.empty_like(inputs)
    labels = np.full(len(inputs), -1, np.int64)
    passed = np.zeros(len(inputs))
    for first, last in bands(rows, inputs.shape[1]):
        weight = source.weight(name, first, last)
        shares = logits_of(inputs, weight)
        shares -= tops[:, None]
        np.exp(shares, out=shares)
        shares /= totals[:, None].astype(np.float32)
        sums = passed + shares.sum(axis=1, dtype=np.float64)
        # What rounding leaves of the last draws falls to the last band.
        found = np.flatnonzero((labels < 0) & ((draws < sums) | (last == rows)))
        labels[found] = first + _places(shares[found], (draws - passed)[found])
        passed = sums
        multiply(shares, weight.T, part)
        gradient += part
        gradient[found] -= weight[labels[found] - first]
    return gradient, labels


def _places(shares: Floats, left: Doubles) -> Labels:
    """For each row of `shares`, the first place at which its running sum is above `left`."""
    sums = np.cumsum(shares, axis=1, dtype=np.float64)
    places: Labels = np.minimum((sums <= left[:, None]).sum(axis=1), shares.shape[1] - 1)
    return places
