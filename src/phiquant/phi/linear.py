"""The steps of the forward pass that read weights: embedding, projection, SwiGLU.

Each reads its weight in bands of rows and applies a band to all tokens at hand before it reads
the next, so that memory is one band and the activations, whatever the model's size. Against
holding a whole block this costs nothing in arithmetic: a band of a weight's rows gives a band of
the output's columns.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from phiquant.host.threads import for_each, multiply
from phiquant.phi.weights import Floats, WeightSource, row_bands

_READ_THROUGH = 64

ROWS = 64
"""Tokens that one core works on at a time where a step is not a product."""


def embed(source: WeightSource, tokens: npt.NDArray[np.int32]) -> Floats:
    """The embeddings (tokens, hidden) of token ids, reading only the rows that occur."""
    architecture = source.architecture
    hidden = np.empty((len(tokens), architecture.hidden_size), np.float32)
    ids, places = np.unique(tokens, return_inverse=True)
    rows = np.empty((len(ids), architecture.hidden_size), np.float32)
    for start, stop in _runs(ids):
        first = int(ids[start])
        read = source.weight("model.embed_tokens.weight", first, int(ids[stop - 1]) + 1)
        rows[start:stop] = read[ids[start:stop] - first]
    np.take(rows, places, axis=0, out=hidden)
    return hidden


def _runs(ids: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Index ranges of sorted `ids` that are near enough to be read in one go."""
    cuts = np.flatnonzero(np.diff(ids) > _READ_THROUGH) + 1
    edges = [0, *cuts.tolist(), len(ids)]
    yield from pairwise(edges)


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


def project(source: WeightSource, name: str, inputs: Floats, rows: int) -> Floats:
    """`inputs` (tokens, in) times the transposed weight `name` (rows, in): (tokens, rows)."""
    outputs = np.empty((len(inputs), rows), np.float32)
    for first, last in row_bands(rows, inputs.shape[1]):
        multiply(inputs, source.weight(name, first, last), outputs[:, first:last])
    return outputs


def gated(source: WeightSource, name: str, inputs: Floats, inner: int) -> Floats:
    """SwiGLU's product, silu(gate) * up, of shape (tokens, inner).

    The weight `name` is (2 * inner, in): the gate's rows, then the up projection's; the two are
    read in step so that the fused output never exists. Source: https://arxiv.org/abs/2002.05202.
    """
    outputs = np.empty((len(inputs), inner), np.float32)
    for first, last in row_bands(inner, 2 * inputs.shape[1]):
        gate, up = np.empty((2, len(inputs), last - first), np.float32)
        multiply(inputs, source.weight(name, first, last), gate)
        multiply(inputs, source.weight(name, inner + first, inner + last), up)
        multiply_by_silu(gate, up, outputs[:, first:last])
    return outputs


def multiply_by_silu(gate: Floats, up: Floats, out: Floats) -> None:
    """Write silu(gate) * up to `out`, all (tokens, n); silu(g) = g / (1 + exp(-g))."""

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        # An exp that overflows to infinity rightly gives zero.
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.exp(-gate[here])
            product += 1
            np.divide(gate[here], product, out=product)
            np.multiply(product, up[here], out=out[here])

    for_each(range(0, len(gate), ROWS), work)
