"""cos and sin of every position, as GroupQueryAttention reads them.

Without LongRoPE the caches have a row a position. With it they are two caches in one: a row for
each of the original positions, turned by the short factors, then a row for each position of the
whole context, turned by the long ones. A graph picks one by an offset (`original_positions`) on
the positions, or by an `If` over two slices; nothing is copied in the first form.

Rows are those of `network.rope.rotation`, LongRoPE's attention factor included, rounded to the
activations' type.
"""

from collections.abc import Iterator

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.rope import Rotation, rotation

BAND = 1 << 14
"""Positions at a time."""


def needs_positions(architecture: Architecture, provider: str) -> bool:
    """Whether rotation is an operator of its own, which is fed with positions.

    GroupQueryAttention rotates where half the rotary dimensions are a multiple of 8, and never on
    DirectML.
    """
    return provider == "dml" or architecture.rope.dimensions // 2 % 8 != 0


def short_rows(architecture: Architecture) -> int:
    """Rows of LongRoPE's short factors; 0 where there is but one cache."""
    long = architecture.rope.long
    if long is None or long.original_positions >= architecture.max_positions:
        return 0
    return long.original_positions


def cache_rows(architecture: Architecture) -> int:
    """Rows of each cache."""
    return short_rows(architecture) + architecture.max_positions


def cache_bands(architecture: Architecture) -> Iterator[tuple[int, Rotation]]:
    """The caches from row 0 on: first row, and cos and sin (rows, dimensions / 2)."""
    short = short_rows(architecture)
    if short:
        yield from _positions(architecture, short, short, 0)
    yield from _positions(
        architecture, architecture.max_positions, architecture.max_positions, short
    )


def _positions(
    architecture: Architecture, count: int, length: int, row: int
) -> Iterator[tuple[int, Rotation]]:
    for first in range(0, count, BAND):
        positions = np.arange(first, min(first + BAND, count), dtype=np.int64)
        yield row + first, rotation(architecture.rope, positions, length)
