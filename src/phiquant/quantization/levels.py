"""Levels of neighbouring columns, put together."""

from collections.abc import Sequence

import numpy as np

from phiquant.quantization.grid import Levels


def concatenate(pieces: Sequence[Levels]) -> Levels:
    """The levels of a tensor from those of its blocks, left to right.

    Everything that levels hold has the group or the block as its second axis.
    """
    if len(pieces) == 1:
        return pieces[0]
    stored = {
        name: np.concatenate([piece.stored[name] for piece in pieces], axis=1)
        for name in pieces[0].stored
    }
    scale = np.concatenate([piece.scale for piece in pieces], axis=1)
    offset = np.concatenate([piece.offset for piece in pieces], axis=1)
    return Levels(scale, offset, stored)
