import tracemalloc

import numpy as np
import pytest

from phiquant.phi.network import attention
from phiquant.phi.network.attention import attend


def slow(queries, keys, values, window):
    """Softmax attention by its definition, one query and one head at a time, in float64."""
    n, heads, size = queries.shape
    m, kv_heads, _ = keys.shape
    out = np.zeros((n, heads, size))
    for t in range(n):
        i = m - n + t
        seen = [j for j in range(i + 1) if window is None or i - j < window]
        for h in range(heads):
            kv = h // (heads // kv_heads)
            scores = [float(queries[t, h].astype(float) @ keys[j, kv]) / size**0.5 for j in seen]
            share = np.exp(np.array(scores) - max(scores))
            share /= share.sum()
            out[t, h] = sum(
                p * values[j, kv].astype(float) for p, j in zip(share, seen, strict=True)
            )
    return out.reshape(n, heads * size)


@pytest.mark.parametrize("window", [None, 1, 3, 17, 500])
@pytest.mark.parametrize(
    ("n", "m", "heads", "kv_heads"),
    [(1, 1, 2, 2), (1, 40, 6, 2), (2, 4, 2, 1), (40, 40, 6, 2), (33, 47, 3, 1)],
)
def test_attention_equals_its_definition(monkeypatch, n, m, heads, kv_heads, window):
    rng = np.random.default_rng(n * m)
    queries = rng.standard_normal((n, heads, 5)).astype(np.float32) * 2
    keys, values = rng.standard_normal((2, m, kv_heads, 5)).astype(np.float32)
    expected = slow(queries, keys, values, window)
    np.testing.assert_allclose(attend(queries, keys, values, window), expected, atol=2e-6)
    # The same in many chunks, of which the last is short.
    monkeypatch.setattr(attention, "CHUNK_SCORES", 1)
    monkeypatch.setattr(attention, "CHUNK_QUERIES", (7, 7))
    np.testing.assert_allclose(attend(queries, keys, values, window), expected, atol=2e-6)


def test_large_scores_do_not_overflow():
    queries = np.full((2, 1, 4), 1e4, np.float32)
    values = np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    keys = np.array([[[-1e4] * 4], [[1e4] * 4]], np.float32)
    out = attend(queries, keys, values, None)
    np.testing.assert_array_equal(out, values.reshape(2, 4))


def test_memory_does_not_grow_with_the_square_of_the_length():
    length, heads = 4500, 4
    rng = np.random.default_rng(0)
    queries, keys, values = rng.standard_normal((3, length, heads, 8), dtype=np.float32)
    tracemalloc.start()
    try:
        attend(queries, keys, values, None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < length * length * heads * 4 / 5
