"""Second moments of a linear layer's inputs, gathered chunk by chunk."""

import numpy as np

from phiquant.phi.weights import Floats


class Moments:
    """Means over tokens of what a layer's rounding depends on.

    x (n,) are the inputs as the quantized network makes them, x' those of the original, and r
    (rows,) by how much the residual stream that the layer adds to is behind the original's.
    """

    def __init__(self, width: int) -> None:
        self._tokens = 0
        self._second = np.zeros((width, width), np.float32)
        self._shift: Floats | None = None
        self._behind: Floats | None = None

    def add(
        self, inputs: Floats, original: Floats | None = None, behind: Floats | None = None
    ) -> None:
        """Take in x (tokens, n), x' of that shape and r (tokens, rows), always the same ones."""
        self._tokens += len(inputs)
        self._second += inputs.T @ inputs
        if original is not None:
            self._shift = _sum(self._shift, np.matmul((original - inputs).T, inputs, dtype=np.float32))
        if behind is not None:
            self._behind = _sum(self._behind, np.matmul(behind.T, inputs, dtype=np.float32))

    @property
    def second(self) -> Floats:
        """E[x xᵀ], (n, n)."""
        return self._second / np.float32(self._tokens)

    @property
    def shift(self) -> Floats | None:
        """E[(x' - x) xᵀ], (n, n)."""
        return None if self._shift is None else self._shift / np.float32(self._tokens)

    @property
    def behind(self) -> Floats | None:
        """E[r xᵀ], (rows, n)."""
        return None if self._behind is None else self._behind / np.float32(self._tokens)


def _sum(so_far: Floats | None, more: Floats) -> Floats:
    return more if so_far is None else np.add(so_far, more, out=so_far)
