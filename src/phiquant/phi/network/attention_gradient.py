"""The reverse of causal attention with grouped keys, in bounded memory.

With scores S = Q Kᵀ / √d, shares P = softmax(S) and outputs O = P V of one head, and dO given,

    dV = Pᵀ dO      dP = dO Vᵀ      dS = P * (dP - Σ_j P * dP)      dQ = dS K / √d
    dK = dSᵀ Q / √d

(https://arxiv.org/abs/2205.14135, appendix B.2). The scores are computed again, for a chunk of
queries at a time, as `attend` takes them; the key heads go over the cores, since all queries of a
key head add to the same dK and dV.
"""

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.network.attention import chunk_queries, visibility
from phiquant.phi.weights import Floats


def attend_backward(
    turned: tuple[Floats, Floats, Floats], window: int | None, gradient: Floats
) -> tuple[Floats, Floats, Floats]:
    """Gradients with respect to queries, keys and values, from that of what `attend` returned.

    `turned` are the queries (n, heads, head_size), and the keys and values (n, kv_heads,
    head_size) of a whole sequence; `gradient` is (n, heads * head_size). The three returned have
    the shapes of `turned`.
    """
    queries, keys, values = turned
    length, heads, size = queries.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    by_key_head = (length, kv_heads, group, size)
    gradients = np.empty(by_key_head, np.float32), np.empty(keys.shape, np.float32)
    of_values = np.empty(values.shape, np.float32)
    grouped, wanted = queries.reshape(by_key_head), gradient.reshape(by_key_head)

    def work(head: int) -> None:
        key_head = _KeyHead(keys[:, head], values[:, head], window)
        gradients[0][:, head] = key_head.reverse(grouped[:, head], wanted[:, head])
        gradients[1][:, head], of_values[:, head] = key_head.of_keys, key_head.of_values

    for_each(range(kv_heads), work)
    return gradients[0].reshape(queries.shape), gradients[1], of_values


class _KeyHead:
    """One key head (length, size), and what its queries add to the gradients of it."""

    def __init__(self, keys: Floats, values: Floats, window: int | None) -> None:
        self._keys, self._values = np.ascontiguousarray(keys), np.ascontiguousarray(values)
        self._window = window
        self.of_keys, self.of_values = np.zeros((2, *keys.shape), np.float32)

    def reverse(self, queries: Floats, gradient: Floats) -> Floats:
        """The gradient of all `queries` (length, group, size), chunk by chunk."""
        length, group, _ = queries.shape
        window = self._window
        of_queries = np.empty(queries.shape, np.float32)
        step = chunk_queries(group, min(length, window or length))
        for first in range(0, length, step):
            last = min(first + step, length)
            low = 0 if window is None else max(0, first - window + 1)
            mask = visibility(range(first, last), range(low, last), window)
            here = queries[first:last], gradient[first:last]
            of_queries[first:last] = self._chunk(*here, slice(low, last), mask)
        return of_queries

    def _chunk(self, queries: Floats, gradient: Floats, seen: slice, mask: Floats) -> Floats:
        count, group, size = queries.shape
        scale = np.float32(size**-0.5)
        rows: Floats = queries.reshape(-1, size) * scale
        wanted = np.ascontiguousarray(gradient.reshape(-1, size))
        keys, values = self._keys[seen], self._values[seen]
        # Threads have error states of their own.
        with np.errstate(over="ignore", invalid="ignore"):
            shares: Floats = rows @ keys.T
            shares.reshape(count, group, -1)[..., -mask.shape[-1] :] += mask
            shares -= shares.max(axis=-1, keepdims=True)
            np.exp(shares, out=shares)
            shares /= shares.sum(axis=-1, keepdims=True)
            self.of_values[seen] += shares.T @ wanted
            slopes: Floats = wanted @ values.T
            slopes -= np.einsum("ij,ij->i", shares, slopes)[:, None]
            slopes *= shares
            self.of_keys[seen] += slopes.T @ rows
            of_queries: Floats = slopes @ keys
            of_queries *= scale
        return of_queries.reshape(count, group, size)
