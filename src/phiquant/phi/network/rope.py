"""Rotary position embedding with LongRoPE, in float32 as Phi was trained and is served.

Pair i of a head's first `dimensions` values is (x[i], x[i + dimensions / 2]), NeoX style; it is
turned by the angle `position * frequency[i]` with `frequency[i] = 1 / (factor[i] * theta ** (2 i
/ dimensions))`. cos and sin are multiplied by LongRoPE's attention factor; the values beyond
`dimensions` pass unturned.

Frequencies and angles are rounded to float32 in the places where transformers rounds them: at
position 4096 one last bit of an angle is 2e-4 radians, so a more exact product would be a
different network. Sources: https://arxiv.org/abs/2104.09864, https://arxiv.org/abs/2402.13753.

Which factors hold is a property of the whole sequence, not of a position: up to and including
`original_positions` tokens the short ones, beyond it the long ones for every token, the first
ones too. Keys cached under the short factors are therefore worthless once the sequence has
grown past the boundary; see `reference.py`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.threads import for_each
from phiquant.phi.network.parts import Rope
from phiquant.phi.weights import Floats

ROWS = 64
"""Tokens that one core turns at a time."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """cos and sin of every token's angles, each of shape (tokens, dimensions / 2)."""

    cos: Floats
    sin: Floats

    def repeated(self, times: int) -> "Rotation":
        """That of as many sequences, one after another."""
        return Rotation(np.tile(self.cos, (times, 1)), np.tile(self.sin, (times, 1)))


def uses_long_factors(rope: Rope, length: int) -> bool:
    """Whether a sequence of `length` tokens is turned with LongRoPE's long factors."""
    return rope.long is not None and length > rope.long.original_positions


def frequencies(rope: Rope, length: int) -> Floats:
    """Radians per position of each pair, shape (dimensions / 2,), for a sequence of `length`."""
    exponents = np.arange(0, rope.dimensions, 2, dtype=np.float32) / np.float32(rope.dimensions)
    wavelengths = np.power(np.float64(rope.theta), exponents.astype(np.float64)).astype(np.float32)
    if rope.long is not None:
        is_long = uses_long_factors(rope, length)
        factors = rope.long.long_factors if is_long else rope.long.short_factors
        with np.errstate(over="ignore"):  # a pair that never turns
            wavelengths = np.asarray(factors, np.float32) * wavelengths
    return np.float32(1) / wavelengths


def rotation(rope: Rope, positions: npt.NDArray[np.int64], length: int) -> Rotation:
    """The rotation of tokens at `positions` in a sequence that is `length` tokens long in all."""
    angles = positions.astype(np.float32)[:, None] * frequencies(rope, length)
    factor = np.float32(rope.long.attention_factor if rope.long is not None else 1.0)
    exact = angles.astype(np.float64)
    return Rotation(
        cos=np.cos(exact).astype(np.float32) * factor,
        sin=np.sin(exact).astype(np.float32) * factor,
    )


def rotate(heads: Floats, by: Rotation) -> Floats:
    """Turn queries or keys of shape (tokens, heads, head_size); a new array of that shape."""
    half = by.cos.shape[1]
    turned = np.empty(heads.shape, np.float32)

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        cos, sin = by.cos[here, None], by.sin[here, None]
        left, right = heads[here, :, :half], heads[here, :, half : 2 * half]
        # Threads have error states of their own; broken weights are to show in the logits.
        with np.errstate(over="ignore", invalid="ignore"):
            turned[here, :, :half] = left * cos - right * sin
            turned[here, :, half : 2 * half] = right * cos + left * sin
        turned[here, :, 2 * half :] = heads[here, :, 2 * half :]

    for_each(range(0, len(heads), ROWS), work)
    return turned
