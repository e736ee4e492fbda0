"""From what feeds a layer's input channels to its columns, and back (`parts.Feed`)."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from phiquant.phi.network.parts import Feed

Real = TypeVar("Real", bound=np.floating)


def by_group(feed: Feed, columns: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Something of every column as (groups, columns that share a feeder, channels of a group)."""
    part = feed.attention
    if part is None:
        return columns.reshape(-1, 1, 1)
    return columns.reshape(part.kv_heads, part.heads // part.kv_heads, part.head_size)


def to_columns(feed: Feed, channels: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Something of every column, from that of every feeding gain or row."""
    part = feed.attention
    if part is None:
        return channels
    grouped = channels.reshape(part.kv_heads, 1, part.head_size)
    return np.repeat(grouped, part.heads // part.kv_heads, axis=1).reshape(-1)


def to_channels(feed: Feed, columns: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """Something of every feeding gain or row, from that of every column, alike where shared."""
    return by_group(feed, columns)[:, 0].reshape(-1)
