"""One safetensors file, mapped: names, element types, shapes and raw bytes.

Layout: 8 bytes little-endian header length, a JSON header (name → dtype, shape, data_offsets
relative to its end), then the tensors without gaps. The `safetensors` library checks all of it
(length, overlaps, holes, size of each tensor against its shape) when a file is opened; only
then are the offsets read here, because the library cannot hand out BF16 as NumPy arrays.
Source: https://github.com/huggingface/safetensors#format.
"""

import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phiquant.errors import CheckpointError

RAW_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}
"""Stored element type → NumPy view of it; BF16 is viewed as its 16 bits."""

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that a clone without Git LFS has in place of a large file."""


@dataclass(frozen=True, slots=True)
class SafetensorsTensor:
    """A tensor as it lies in a file; `offset` is in bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    nbytes: int


def read_header(path: Path) -> tuple[SafetensorsTensor, ...]:
    """All tensors of the file, by offset; CheckpointError if the file is not sound."""
    from safetensors import SafetensorError, safe_open

    try:
        # Opened here first: the library calls a file that may not be read an absent one.
        with path.open("rb") as file:
            _refuse_pointer(path, file.read(len(POINTER)))
        with path.open("rb") as file, safe_open(path, framework="numpy"):
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError, struct.error) as error:
        raise CheckpointError(
            f"{path.name} is not a sound safetensors file ({error}); "
            "it may be truncated: download it again"
        ) from error
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors.append(
            SafetensorsTensor(name, entry["dtype"], shape, path, 8 + length + first, last - first)
        )
    return tuple(sorted(tensors, key=lambda tensor: tensor.offset))


def _refuse_pointer(path: Path, head: bytes) -> None:
    if head == POINTER:
        raise CheckpointError(
            f"{path.name} is a pointer that Git LFS left in place of the weights; fetch them with "
            "`git lfs pull`, or download the model again"
        )


def map_file(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes of a file, read-only; nothing is read until it is used."""
    return np.memmap(path, np.uint8, mode="r")


def tensor_view(file: npt.NDArray[np.uint8], tensor: SafetensorsTensor) -> npt.NDArray[np.generic]:
    """The tensor, in its stored element type and shape, within the bytes of its file."""
    data = file[tensor.offset : tensor.offset + tensor.nbytes].view(np.ndarray)
    return data.view(RAW_DTYPES[tensor.dtype]).reshape(tensor.shape)


def map_tensor(tensor: SafetensorsTensor) -> npt.NDArray[np.generic]:
    """A read-only view of one tensor alone; for many, map the file once."""
    return tensor_view(map_file(tensor.path), tensor)


def read_ahead(file: npt.NDArray[np.uint8], tensor: SafetensorsTensor) -> None:
    """Ask the system to fetch the pages of a tensor; a no-op where it cannot be asked."""
    mapped = getattr(file, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_WILLNEED"):
        first = tensor.offset - tensor.offset % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, first, tensor.offset + tensor.nbytes - first)
