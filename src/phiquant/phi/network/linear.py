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

from phiquant.host.threads import multiply
from phiquant.phi.network.gate import multiply_by_silu
from phiquant.phi.network.parts import Linear
from phiquant.phi.weights import Floats, WeightSource, row_bands

_READ_THROUGH = 64


def embed(source: WeightSource, tokens: npt.NDArray[np.int32]) -> Floats:
    """The embeddings (tokens, hidden) of token ids, reading only the rows that occur."""
    embedding = source.architecture.network.embedding
    hidden = np.empty((len(tokens), embedding.columns), np.float32)
    ids, places = np.unique(tokens, return_inverse=True)
    rows = np.empty((len(ids), embedding.columns), np.float32)
    for start, stop in _runs(ids):
        first = int(ids[start])
        read = source.weight(embedding.weight.name, first, int(ids[stop - 1]) + 1)
        rows[start:stop] = read[ids[start:stop] - first]
    np.take(rows, places, axis=0, out=hidden)
    return hidden


def _runs(ids: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Index ranges of sorted `ids` that are near enough to be read in one go."""
    cuts = np.flatnonzero(np.diff(ids) > _READ_THROUGH) + 1
    edges = [0, *cuts.tolist(), len(ids)]
    yield from pairwise(edges)


def project(source: WeightSource, layer: Linear, inputs: Floats) -> Floats:
    """The outputs (tokens, rows) of a linear layer for `inputs` (tokens, columns)."""
    outputs = np.empty((len(inputs), layer.rows), np.float32)
    for first, last in row_bands(layer.rows, layer.columns):
        weight = source.weight(layer.weight.name, first, last)
        multiply(inputs, weight, outputs[:, first:last])
    return outputs


def gated(source: WeightSource, layer: Linear, inputs: Floats) -> Floats:
    """SwiGLU's product, silu(gate) * up, of shape (tokens, inner).

    The weight of `layer` is (2 * inner, in): the gate's rows, then the up projection's; the two are
    read in step so that the fused output never exists. Source: https://arxiv.org/abs/2002.05202.
    """
    name, inner = layer.weight.name, layer.rows // 2
    outputs = np.empty((len(inputs), inner), np.float32)
    for first, last in row_bands(inner, 2 * inputs.shape[1]):
        gate, up = np.empty((2, len(inputs), last - first), np.float32)
        multiply(inputs, source.weight(name, first, last), gate)
        multiply(inputs, source.weight(name, inner + first, inner + last), up)
        multiply_by_silu(gate, up, outputs[:, first:last])
    return outputs
