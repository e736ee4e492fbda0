"""Second moments of a linear layer's inputs, gathered chunk by chunk.

Sums are kept in bands of rows, which go over the cores: each is a product of its own, added to in
place. E[x xᵀ] is symmetric, and only what lies on the diagonal and right of it is summed.
"""

from collections.abc import Callable

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.weights import Floats

BAND = 512
"""Rows of the moments that one core adds to at a time."""

ACROSS = 2048
"""Columns of a product, so that the memory of its result is used again."""


class Moments:
    """Means over tokens of what a layer's rounding depends on.

    x (n,) are the inputs in the quantized network and x' those in the original; r (rows,) is what
    the quantized network's residual stream lacks of the original's, where the layer adds to it.
    """

    def __init__(self, width: int) -> None:
        self._tokens = 0
        self._second = np.zeros((width, width), np.float32)
        self._shift: Floats | None = None
        self._behind: Floats | None = None

    def add(
        self, inputs: Floats, original: Floats | None = None, behind: Floats | None = None
    ) -> None:
        """Take in x (tokens, n), x' of that shape and r (tokens, rows); the same of them each
        time.
        """
        self._tokens += len(inputs)
        width = inputs.shape[1]
        _add(self._second, lambda here: inputs[:, here], inputs, symmetric=True)
        if original is not None:
            self._shift = _or_zeros(self._shift, (width, width))
            _add(self._shift, lambda here: original[:, here] - inputs[:, here], inputs)
        if behind is not None:
            self._behind = _or_zeros(self._behind, (behind.shape[1], width))
            _add(self._behind, lambda here: behind[:, here], inputs)

    @property
    def second(self) -> Floats:
        """E[x xᵀ], (n, n)."""
        mean = _mean(self._second, self._tokens)

        def mirror(first: int) -> None:
            here = slice(first, first + BAND)
            mean[here, :first] = mean[:first, here].T
            right = np.triu(mean[here, here], 1)
            mean[here, here] = np.diag(np.diagonal(mean[here, here])) + right + right.T

        for_each(range(0, len(mean), BAND), mirror)
        return mean

    @property
    def shift(self) -> Floats | None:
        """E[(x' - x) xᵀ], (n, n)."""
        return None if self._shift is None else _mean(self._shift, self._tokens)

    @property
    def behind(self) -> Floats | None:
        """E[r xᵀ], (rows, n)."""
        return None if self._behind is None else _mean(self._behind, self._tokens)


def _or_zeros(sums: Floats | None, shape: tuple[int, int]) -> Floats:
    return np.zeros(shape, np.float32) if sums is None else sums


def _add(
    sums: Floats, left: Callable[[slice], Floats], right: Floats, *, symmetric: bool = False
) -> None:
    """Add leftᵀ right to `sums`; of a `symmetric` product only the diagonal and what is right of
    it.

    `left` gives a slice of the left factor's columns, (tokens, columns).
    """

    def work(first: int) -> None:
        here = slice(first, first + BAND)
        columns, rows = left(here), sums[here]
        for at in range(first if symmetric else 0, right.shape[1], ACROSS):
            # Broken weights are to show in what is made of them.
            with np.errstate(over="ignore", invalid="ignore"):
                rows[:, at : at + ACROSS] += columns.T @ right[:, at : at + ACROSS]

    for_each(range(0, len(sums), BAND), work)


def _mean(sums: Floats, tokens: int) -> Floats:
    """`sums` over the number of tokens."""
    mean = np.empty_like(sums)

    def work(first: int) -> None:
        here = slice(first, first + BAND)
        np.divide(sums[here], np.float32(tokens), out=mean[here])

    for_each(range(0, len(sums), BAND), work)
    return mean
