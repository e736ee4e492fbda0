"""Second moments of a linear layer's inputs, gathered chunk by chunk."""

import numpy as np

from phiquant.phi.weights import Floats


class Moments:
    """Means over tokens of x xᵀ and, where the original's inputs are given, of (x' - x) xᵀ.

    x (n,) are the inputs as the quantized network makes them, x' those of the original.
    """

    def __init__(self, width: int, shifted: bool) -> None:
        self._tokens = 0
        self._second = np.zeros((width, width), np.float32)
        self._shift = np.zeros((width, width), np.float32) if shifted else None

    def add(self, inputs: Floats, original: Floats | None = None) -> None:
        """Take in `inputs` (tokens, n) and, where the moments are shifted, the `original`'s."""
        self._tokens += len(inputs)
        self._second += inputs.T @ inputs
        if self._shift is not None:
            assert original is not None
            self._shift += (original - inputs).T @ inputs

    @property
    def second(self) -> Floats:
        """E[x xᵀ], (n, n)."""
        return self._second / np.float32(self._tokens)

    @property
    def shift(self) -> Floats | None:
        """E[(x' - x) xᵀ], (n, n)."""
        return None if self._shift is None else self._shift / np.float32(self._tokens)
