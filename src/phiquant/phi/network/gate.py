"""The gate of a feed-forward part, silu(gate) * up, and its reverse, in float32.

Source: https://arxiv.org/abs/2002.05202.
"""

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.weights import Floats

ROWS = 64
"""Tokens that one core works on at a time."""


def swiglu(fused: Floats, out: Floats) -> None:
    """Write silu(gate) * up to `out` (tokens, inner); `fused` (tokens, 2 * inner) has both."""
    inner = fused.shape[1] // 2
    gate, up = fused[:, :inner], fused[:, inner:]

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        silu_product(gate[here], up[here], out[here])

    for_each(range(0, len(gate), ROWS), work)


def silu_product(gate: Floats, up: Floats, out: Floats) -> None:
    """Write silu(gate) * up to `out`, all of one shape, on this core.

    silu(g) = g / (1 + exp(-g)).
    """
    # An exp that overflows to infinity rightly gives zero.
    with np.errstate(over="ignore", invalid="ignore"):
        product = np.exp(-gate)
        product += 1
        np.divide(gate, product, out=product)
        np.multiply(product, up, out=out)


def swiglu_backward(fused: Floats, gradient: Floats) -> Floats:
    """The gradient with respect to `fused` (tokens, 2 * inner), from that of silu(gate) * up.

    With s = 1 / (1 + exp(-g)): silu(g) = g s and silu'(g) = s (1 + g (1 - s)).
    """
    inner = fused.shape[1] // 2
    of_fused = np.empty_like(fused)

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        gate, up = fused[here, :inner], fused[here, inner:]
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(-gate))
        silu = gate * share
        np.multiply(gradient[here], silu, out=of_fused[here, inner:])
        slope = share + silu * (1 - share)
        np.multiply(gradient[here] * up, slope, out=of_fused[here, :inner])

    for_each(range(0, len(fused), ROWS), work)
    return of_fused
