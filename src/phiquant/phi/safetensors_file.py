"""One safetensors file: names, element types, shapes and raw bytes.

Layout: 8 bytes little-endian header length, a JSON header (name → dtype, shape, data_offsets
relative to its end), then the tensors without gaps. The header's length is looked at first; the
`safetensors` library then checks all of it (overlaps, holes, size of each tensor against its shape)
when a file is opened; only then are the offsets read here, because the library cannot hand out BF16
as NumPy arrays.
Source: https://github.com/huggingface/safetensors#format.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.errors import InputError
from phiquant.host import foreign
from phiquant.host.opened_file import OpenedFile
from phiquant.host.strict_json import parse_json

RAW_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "U8": np.dtype("u1"),
}
"""Stored element type → NumPy view of it; BF16 is viewed as its 16 bits."""

LONGEST_HEADER = 16 << 20
"""Bytes; a model of ten thousand layers has half as many, and a sparse file may claim any."""
LONGEST_NAME = 256
"""Characters of a tensor's name."""

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


def read_header(
    path: Path, home: Path, kind: foreign.FileKind = foreign.WEIGHTS
) -> tuple[SafetensorsTensor, ...]:
    """All tensors of the file in the directory `home`, by offset.

    Raises the error of `kind` if the file is not sound.
    """
    header, length = _header(path, home, kind)
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if len(name) > LONGEST_NAME:
            raise _unsound(path, kind.error, f"a tensor has a name of {len(name)} characters")
        first, last = entry["data_offsets"]
        shape = tuple(entry["shape"])
        tensors.append(
            SafetensorsTensor(name, entry["dtype"], shape, path, 8 + length + first, last - first)
        )
    return tuple(sorted(tensors, key=lambda tensor: tensor.offset))


def read_metadata(path: Path, home: Path) -> Mapping[str, object]:
    """What the file says about itself as a whole. Raises CheckpointError as `read_header` does."""
    metadata = _header(path, home, foreign.WEIGHTS)[0].get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _header(path: Path, home: Path, kind: foreign.FileKind) -> tuple[dict[str, Any], int]:
    """The header as the library has found it sound, and its length in bytes."""
    from safetensors import SafetensorError, safe_open

    with foreign.opened(path, kind, home) as file:
        head = file.read(len(POINTER))
        if head == POINTER:
            raise kind.error(
                f"{path.name} is a pointer that Git LFS left in place of the weights; fetch them "
                "with `git lfs pull`, or download the model again"
            )
        if len(head) < 8:
            raise _unsound(path, kind.error, f"it has {len(head)} bytes")
        (length,) = struct.unpack_from("<Q", head)
        if length > LONGEST_HEADER:
            raise _unsound(path, kind.error, f"it claims a header of {length:,} bytes")
        file.seek(8)
        text = file.read(length)
        try:
            header = parse_json(text.decode())
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, ValueError) as error:
            raise _unsound(path, kind.error, str(error)) from None
    return header, length


def _unsound(path: Path, error: type[InputError], fault: str) -> InputError:
    return error(
        f"{path.name} is not a sound safetensors file ({fault}); it may be truncated: download it "
        "again"
    )


def read_elements(
    file: OpenedFile, tensor: SafetensorsTensor, first: int, last: int
) -> npt.NDArray[np.generic]:
    """Elements `first` to `last` (exclusive) of the tensor in row-major order, as it is stored.

    Raises the file's error where it is shorter by now.
    """
    dtype = RAW_DTYPES[tensor.dtype]
    nbytes = (last - first) * dtype.itemsize
    return file.read(tensor.offset + first * dtype.itemsize, nbytes).view(dtype)


def read_rows(
    file: OpenedFile, tensor: SafetensorsTensor, first: int = 0, last: int | None = None
) -> npt.NDArray[np.generic]:
    """Rows `first` to `last` (exclusive; as a slice takes them) of the tensor, as it is stored.

    Shape (rows, ...); of a vector, (rows,). Raises as `read_elements` does.
    """
    count, *inner = tensor.shape
    start, stop, _ = slice(first, last).indices(count)
    size, stop = math.prod(inner), max(start, stop)
    return read_elements(file, tensor, start * size, stop * size).reshape(stop - start, *inner)
