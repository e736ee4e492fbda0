"""How far a candidate's next-token distributions are from the reference's, over a text.

Per position, over the whole vocabulary: the KL divergence D(reference || candidate) in nats, and
whether both put the same token first; per predicted token, the negative log-likelihood under
each. `DivergenceMeter` takes logits window by window and keeps four numbers a position; the
figures and their standard errors come from `bootstrap.py`.

Numerics: logits are widened to float64 and log-softmax is taken there. With p the reference's
probabilities and a, b the logits less their maxima, D = sum(p (a - b)) - log sum e^a + log sum
e^b. Equal logits give exactly zero; otherwise the rounding error is about 1e-15.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.errors import InputError
from phiquant.evaluation.bootstrap import Estimate, Figures, Positions, estimate
from phiquant.phi.weights import Floats, Tokens


@dataclass(frozen=True, slots=True)
class Divergence(Figures):
    """What a candidate lost against the reference, over one text.

    Divergences are in nats. `perplexity_ratio` is the candidate's over the reference's on the
    same text, and so far more certain than either; `top1_agreement` is the share of positions at
    which both put the same token first. Positions where the candidate's logits are not all
    finite count as infinitely far, infinitely unlikely and disagreeing; nothing is left out.
    """

    positions: int
    """Positions whose distributions were compared."""
    predictions: int
    """Tokens of the text that were predicted: one fewer a window."""
    non_finite: int
    """Positions at which the candidate's logits held an infinity or a NaN."""

    def as_json(self) -> dict[str, Any]:
        """The figures as plain numbers; None for what is not finite, which JSON cannot hold."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Estimate | int) -> dict[str, float | None] | int:
    if isinstance(value, Estimate):
        return {k: v if math.isfinite(v) else None for k, v in asdict(value).items()}
    return value


class DivergenceMeter:
    """Collects windows of a text; `result` sums them up. One window's logits in memory."""

    def __init__(self) -> None:
        self._windows: list[Positions] = []
        self._non_finite = 0

    def add(self, reference: Floats, candidate: Floats, tokens: Tokens) -> None:
        """Take in one window: both models' logits (n, vocabulary) at its n `tokens`.

        Row i is the distribution of token i + 1. To leave out the first positions of a window,
        cut all three alike. Raises InputError if shapes disagree or the reference is not finite.
        """
        _check(reference, candidate, tokens)
        broken = _not_finite(candidate)
        self._windows.append(_measure(reference, candidate, tokens, broken))
        self._non_finite += int(broken.sum())

    def result(self) -> Divergence:
        """The figures over all windows so far. Raises InputError if they predict nothing."""
        predictions = sum(len(window.reference_loss) for window in self._windows)
        if not predictions:
            raise InputError("No token was predicted; give a text of at least two tokens.")
        figures = estimate(self._windows)
        return Divergence(
            **{field.name: getattr(figures, field.name) for field in fields(figures)},
            positions=sum(len(window.divergence) for window in self._windows),
            predictions=predictions,
            non_finite=self._non_finite,
        )


def _check(reference: Floats, candidate: Floats, tokens: Tokens) -> None:
    if reference.ndim != 2 or reference.shape != candidate.shape:
        raise InputError(
            f"Logits of shape {candidate.shape} cannot be compared with the reference's "
            f"{reference.shape}; both must be (tokens, vocabulary) of the same text and model."
        )
    if not len(tokens) or tokens.shape != reference.shape[:1]:
        raise InputError(
            f"Expected a token id for each of {len(reference)} rows of logits, and at least one; "
            f"found {tokens.shape}."
        )
    if tokens.min() < 0 or tokens.max() >= reference.shape[1]:
        raise InputError(f"A token id is outside of the vocabulary of {reference.shape[1]}.")
    broken = _not_finite(reference)
    if broken.any():
        raise InputError(
            f"The reference's logits are not finite at position {int(broken.argmax())} of a "
            "window, so nothing can be measured against them; check the checkpoint's weights."
        )


def _not_finite(logits: Floats) -> npt.NDArray[np.bool_]:
    """Which rows hold an infinity or a NaN."""
    return ~np.fromiter((np.isfinite(row).all() for row in logits), np.bool_, len(logits))


def _measure(
    reference: Floats, candidate: Floats, tokens: Tokens, broken: npt.NDArray[np.bool_]
) -> Positions:
    compare = _Comparison(reference.shape[1])
    rows = np.empty((len(tokens), 4))
    # The last position predicts no token of the window; its losses are cut off below.
    following = np.append(tokens[1:], 0)
    for i, token in enumerate(following.tolist()):
        if broken[i]:
            rows[i] = compare(reference[i], reference[i], token)
            rows[i, [0, 1, 3]] = np.inf, 0.0, np.inf
        else:
            rows[i] = compare(reference[i], candidate[i], token)
    return Positions(rows[:, 0], rows[:, 1], rows[:-1, 2], rows[:-1, 3])


class _Comparison:
    """Compares rows of logits in buffers that are used again: new memory would cost more than the
    arithmetic.
    """

    def __init__(self, vocabulary: int) -> None:
        self._buffers = np.empty((3, vocabulary))

    def __call__(
        self, reference: Floats, candidate: Floats, token: int
    ) -> tuple[float, bool, float, float]:
        """Divergence, agreement, and both losses (nats) of the following `token`."""
        a, b, e = self._buffers
        firsts = int(reference.argmax()), int(candidate.argmax())
        np.subtract(reference, reference[firsts[0]], out=a, dtype=np.float64)
        np.subtract(candidate, candidate[firsts[1]], out=b, dtype=np.float64)
        a_token, b_token = float(a[token]), float(b[token])
        np.exp(a, out=e)
        a_sum = float(e.sum())
        np.subtract(a, b, out=a)
        np.multiply(e, a, out=e)
        cross = float(e.sum()) / a_sum
        np.exp(b, out=b)
        a_log, b_log = math.log(a_sum), math.log(float(b.sum()))
        # Rounding can leave -1e-16 where the distributions are all but equal.
        divergence = max(0.0, cross - a_log + b_log)
        return divergence, firsts[0] == firsts[1], a_log - a_token, b_log - b_token
