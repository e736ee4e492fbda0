"""Causal attention with grouped keys, in bounded memory.

Queries are taken in chunks so that the scores of one chunk and one key head stay within
`CHUNK_SCORES` values: small enough for the processor's cache, and never tokens x tokens. A chunk
meets only the keys that it can see; chunks go over all cores. Softmax is taken over whole rows
(no running rescaling, as FlashAttention would need), and the division by its sum is left until
after the values are summed, where there is less to divide.
"""

import numpy as np

from phiquant.host.threads import for_each
from phiquant.phi.weights import Floats

CHUNK_SCORES = 1 << 19
CHUNK_QUERIES = (16, 128)
"""The fewest and the most queries in a chunk."""


def attend(
    queries: Floats, keys: Floats, values: Floats, window: int | None, out: Floats | None = None
) -> Floats:
    """Attention of the last tokens of a sequence to all of it.

    `queries` (n, heads, head_size) belong to the last n of the m tokens whose `keys` and
    `values` (m, kv_heads, head_size) are given, already turned; heads / kv_heads queries share
    a key head. Token i sees token j if j <= i and, with a sliding window, i - j < `window`.
    Returns (n, heads * head_size): `out`, where it is given.
    """
    tokens, heads, size = queries.shape
    length, kv_heads, _ = keys.shape
    group = heads // kv_heads
    past = length - tokens
    # (kv_heads, tokens, group, size) and (kv_heads, m, size): a contiguous matrix per key head.
    grouped = queries.reshape(tokens, kv_heads, group, size).transpose(1, 0, 2, 3)
    grouped = grouped * np.float32(size**-0.5)
    keys, values = (np.ascontiguousarray(part.transpose(1, 0, 2)) for part in (keys, values))
    out = np.empty((tokens, heads * size), np.float32) if out is None else out
    mixed = out.reshape(tokens, kv_heads, group, size)
    assert np.may_share_memory(mixed, out)  # a view: the last axis is contiguous
    step = chunk_queries(group, min(length, window or length))

    def fill(first: int) -> None:
        last = min(first + step, tokens)
        low = 0 if window is None else max(0, past + first - window + 1)
        high = past + last
        mask = visibility(range(past + first, high), range(low, high), window)
        for head in range(kv_heads):
            mixed[first:last, head] = _weigh(
                grouped[head, first:last], keys[head, low:high], values[head, low:high], mask
            )

    for_each(range(0, tokens, step), fill)
    return out


def chunk_queries(group: int, length: int) -> int:
    """How many queries, `group` heads each, are taken at a time against `length` keys."""
    step = CHUNK_SCORES // (group * length)
    return min(max(step, CHUNK_QUERIES[0]), CHUNK_QUERIES[1])


def visibility(queries: range, keys: range, window: int | None) -> Floats:
    """What to add to the scores of the last keys: zero where a query sees a key, else -inf.

    Shape (queries, 1, last keys). Keys further back are seen by all queries and left out.
    """
    if window is None or queries.stop - keys.start <= window:
        keys = range(queries.start, keys.stop)
    ages = np.asarray(queries)[:, None] - np.asarray(keys)
    hidden = ages < 0
    if window is not None:
        hidden |= ages >= window
    return np.where(hidden, np.float32(-np.inf), np.float32(0))[:, None]


def _weigh(queries: Floats, keys: Floats, values: Floats, mask: Floats) -> Floats:
    """Softmax attention of scaled `queries` (n, group, size) over one key head (m, size)."""
    count, group, size = queries.shape
    # Threads have error states of their own; broken weights are to show in the logits.
    with np.errstate(over="ignore", invalid="ignore"):
        scores = queries.reshape(count * group, size) @ keys.T
        scores.reshape(count, group, -1)[..., -mask.shape[-1] :] += mask
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        sums = scores.sum(axis=-1, keepdims=True)
        mixed: Floats = (scores @ values) / sums
    return mixed.reshape(count, group, size)
