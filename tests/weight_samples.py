"""Weights to round: normal, heavy-tailed and real ones, and an importance to go with them.

The real ones are 200 rows of the token embedding of SmolLM2-135M-Instruct (Apache-2.0, by
Hugging Face TB), as the Q8_0 blocks of its published GGUF hold them; each channel is rescaled
by a log-normal factor, as the channels of larger models differ.
"""

from pathlib import Path

import numpy as np

ROWS = Path(__file__).with_name("smollm2_embedding_rows.npy")


def real_weights(columns=768):
    blocks = np.load(ROWS).reshape(-1, 34)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    flat = (scale * blocks[:, 2:].copy().view(np.int8)).reshape(-1)
    flat = flat[: flat.size // columns * columns].reshape(-1, columns)
    factors = np.exp(np.random.default_rng(5).normal(0, 0.35, columns))
    return (flat * factors).astype(np.float32)


def samples(rows=96, columns=768):
    """Name → float32 (rows, columns)."""
    generator = np.random.default_rng(1)
    shape = (rows, columns)
    return {
        "normal": (0.02 * generator.standard_normal(shape)).astype(np.float32),
        "student": (0.02 * generator.standard_t(3, shape)).astype(np.float32),
        "laplace": (0.02 * generator.laplace(size=shape)).astype(np.float32),
        "real": real_weights(columns)[:rows],
    }


def importance_of(columns=768):
    """Like the mean squares of activations: log-normal over channels."""
    return np.random.default_rng(3).lognormal(0, 1.2, columns).astype(np.float32)


def degenerate(columns=768):
    """Name → float32 (rows, columns) that formats find hard."""
    generator = np.random.default_rng(7)
    zero = np.zeros((1, columns), np.float32)
    outlier = zero.copy()
    outlier[0, 5] = 1
    noisy = (0.01 * generator.standard_normal((1, columns))).astype(np.float32)
    noisy[0, 7] = -9
    sparse = generator.standard_normal((3, columns)) * (generator.random((3, columns)) > 0.95)
    normal = generator.standard_normal((2, columns))
    return {
        "zero": zero,
        "constant": zero + np.float32(0.75),
        "negative constant": zero - np.float32(3.25),
        "outlier": outlier,
        "noise and outlier": noisy,
        "subnormal": (1e-40 * normal).astype(np.float32),
        "below float16": (1e-9 * normal).astype(np.float32),
        "float16 subnormal": (3e-6 * normal).astype(np.float32),
        "large": (3000 * normal).clip(-16000, 16000).astype(np.float32),
        "positive": (5 + generator.random((2, columns))).astype(np.float32),
        "negative": (-50 - generator.random((2, columns))).astype(np.float32),
        "sparse": sparse.astype(np.float32),
        "signs": generator.choice([-1.0, 1.0], (1, columns)).astype(np.float32),
    }


def squared_error(actual, wanted, importance=None):
    error = (actual.astype(np.float64) - wanted) ** 2
    return float((error if importance is None else error * importance).sum())
