"""The steps of the forward pass that read weights: embedding, projection, SwiGLU.

Each reads its weight in bands of rows, which go over the cores: a core reads a band, widens or
decodes it, and multiplies all tokens at hand by it while it is in the core's cache. So memory is a
band a core and the activations, whatever the model's size. Against holding a whole block this costs
nothing in arithmetic: a band of a weight's rows gives a band of the output's columns. Bands do not
depend on the number of cores, and so neither do the figures.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from phiquant.host.threads import for_each
from phiquant.phi.network.gate import silu_product
from phiquant.phi.network.parts import Linear
from phiquant.phi.weights import Floats, WeightSource, row_bands

_READ_THROUGH = 64
BAND = 1 << 21
"""Weights in a band: 8 MB of float32. Where a matrix is stored with its columns first, fewer would
cost a read for every few bytes."""


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
    across = np.ascontiguousarray(inputs.T)

    def fill(band: tuple[int, int]) -> None:
        outputs[:, slice(*band)] = _product(source, layer, band, across).T

    for_each([*row_bands(layer.rows, layer.columns, BAND)], fill)
    return outputs


def gated(source: WeightSource, layer: Linear, inputs: Floats) -> Floats:
    """SwiGLU's product, silu(gate) * up, of shape (tokens, inner).

    The weight of `layer` is (2 * inner, in): the gate's rows, then the up projection's; the two are
    read in step so that the fused output never exists. Source: https://arxiv.org/abs/2002.05202.
    """
    inner = layer.rows // 2
    outputs = np.empty((len(inputs), inner), np.float32)
    across = np.ascontiguousarray(inputs.T)

    def fill(band: tuple[int, int]) -> None:
        first, last = band
        gate = _product(source, layer, band, across)
        up = _product(source, layer, (inner + first, inner + last), across)
        silu_product(gate.T, up.T, outputs[:, first:last])

    for_each([*row_bands(inner, layer.columns, BAND)], fill)
    return outputs


def _product(source: WeightSource, layer: Linear, band: tuple[int, int], across: Floats) -> Floats:
    """The outputs (rows, tokens) of a band of the layer's rows, computed on this core.

    `across` are inputs (columns, tokens): products with few tokens take less time so than as rows.
    """
    # Threads have error states of their own; broken weights are to show in the outputs.
    with np.errstate(over="ignore", invalid="ignore"):
        product: Floats = source.weight(layer.weight.name, *band) @ across
    return product
