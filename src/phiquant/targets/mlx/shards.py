"""Which tensor lies where in which safetensors file, known before the first byte.

A file is 8 bytes of header length (little-endian), a JSON header padded with spaces to a multiple
of 8, and the tensors without gaps. Within a file the wider element types come first, so that
every tensor is aligned to its element. Files are filled in network order up to 5 GiB of data,
and named, as mlx_lm does it.
Source: https://github.com/huggingface/safetensors#format; `make_shards` in mlx_lm/utils.py.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from phiquant.planning.plan import Plan
from phiquant.quantization.grid import Grid, PartLayout

SHARD_BYTES = 5 << 30
INDEX = "model.safetensors.index.json"
ELEMENT_TYPES: Mapping[np.dtype[np.generic], str] = {
    np.dtype(np.uint32): "U32",
    np.dtype(np.uint16): "BF16",
    np.dtype(np.float16): "F16",
    np.dtype(np.float32): "F32",
}
"""NumPy dtype of a part → element type in the file; BF16 travels as its 16 bits."""


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One array of the artifact and its place; `offset` counts from the file's start."""

    name: str
    layout: PartLayout
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return self.layout.nbytes // self.layout.shape[0]


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file: its header's bytes, its parts, its size."""

    file: str
    header: bytes
    parts: tuple[ShardTensor, ...]
    nbytes: int


def arrange(plan: Plan, grids: Mapping[str, Grid]) -> tuple[Shard, ...]:
    """Divide the plan's tensors into files of at most `SHARD_BYTES` of data each.

    A single array larger than that gets a file to itself.
    """
    groups: list[list[tuple[str, PartLayout]]] = []
    room = 0
    for row in plan.rows:
        for part, layout in grids[row.grid].layout(row.shape).items():
            if not groups or layout.nbytes > room:
                groups.append([])
                room = SHARD_BYTES
            groups[-1].append((f"{row.output}.{part}", layout))
            room -= layout.nbytes
    if len(groups) == 1:
        return (_shard("model.safetensors", groups[0]),)
    return tuple(
        _shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", parts)
        for number, parts in enumerate(groups, 1)
    )


def _shard(file: str, parts: Sequence[tuple[str, PartLayout]]) -> Shard:
    ordered = sorted(parts, key=lambda item: -item[1].dtype.itemsize)
    entries: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    ends = [0]
    for name, layout in ordered:
        ends.append(ends[-1] + layout.nbytes)
        entries[name] = {
            "dtype": ELEMENT_TYPES[layout.dtype],
            "shape": list(layout.shape),
            "data_offsets": ends[-2:],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    placed = tuple(
        ShardTensor(name, layout, len(header) + first)
        for (name, layout), first in zip(ordered, ends, strict=False)
    )
    return Shard(file, header, placed, len(header) + ends[-1])


def index_json(shards: Sequence[Shard], weights: int) -> str:
    """`model.safetensors.index.json`: the file of every array; `weights` counts parameters."""
    places = {part.name: shard.file for shard in shards for part in shard.parts}
    total = sum(part.layout.nbytes for shard in shards for part in shard.parts)
    index = {
        "metadata": {"total_size": total, "total_parameters": weights},
        "weight_map": dict(sorted(places.items())),
    }
    return json.dumps(index, indent=4)
