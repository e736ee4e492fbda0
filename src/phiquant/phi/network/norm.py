"""RMSNorm and its reverse, in float32."""

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.weights import Floats

ROWS = 64
"""Tokens that one core works on at a time."""


def rms_norm(hidden: Floats, gains: Floats, epsilon: float) -> Floats:
    """RMSNorm over the last axis, in float32. Source: https://arxiv.org/abs/1910.07467."""
    normed = np.empty(hidden.shape, np.float32)

    def work(first: int) -> None:
        here = hidden[first : first + ROWS]
        # Threads have error states of their own; broken weights are to show in the outputs.
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.mean(np.square(here), axis=-1, keepdims=True, dtype=np.float32)
            scale = 1 / np.sqrt(squares + np.float32(epsilon))
            np.multiply(gains, here * scale, out=normed[first : first + ROWS])

    for_each(range(0, len(hidden), ROWS), work)
    return normed


def rms_norm_backward(hidden: Floats, gains: Floats, epsilon: float, gradient: Floats) -> Floats:
    """The gradient with respect to `hidden`, from that of `rms_norm`'s output of its shape.

    With y = γ x r and r = (mean x² + ε)^(-1/2): dx = r γ dy - x r³ mean(γ dy x).
    """
    squares = np.mean(np.square(hidden), axis=-1, keepdims=True, dtype=np.float32)
    scale = 1 / np.sqrt(squares + np.float32(epsilon))
    scaled = gradient * gains
    along = np.mean(scaled * hidden, axis=-1, keepdims=True, dtype=np.float32)
    scaled -= hidden * (np.square(scale) * along)
    scaled *= scale
    return scaled
