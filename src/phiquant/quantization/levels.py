"""Levels of neighbouring columns, put together and taken apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.quantization.grid import Levels


def concatenate(pieces: Sequence[Levels]) -> Levels:
    """The levels of a tensor from those of its blocks, left to right.

    The second axis of every array in `Levels` is the group or the block.
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


def block_of(levels: Levels, index: int, blocks: int) -> Levels:
    """The levels of one of the `blocks` blocks of a row."""

    def cut(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        width = array.shape[1] // blocks
        return array[:, index * width : (index + 1) * width]

    stored = {name: cut(part) for name, part in levels.stored.items()}
    return Levels(cut(levels.scale), cut(levels.offset), stored)
