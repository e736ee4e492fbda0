"""Reading a GGUF file's header, without trust.

    magic "GGUF" | version u32 | tensor count u64 | field count u64
    fields:  key string | value type u32 | value
    tensors: name string | dimensions u32 | extent u64 each, fastest first | type u32 | offset u64
    padding to the alignment | tensor data, each tensor at its offset from here

A string is a u64 length and UTF-8 bytes; an array is an element type u32, a length u64 and the
elements. All little-endian. Every length is checked against the bytes that are left before it is
believed, so that a lying file costs a sentence and not the memory: the `gguf` package's own
reader walks an array of 2^40 elements that are not there.
Source: docs/gguf.md of ggml.
"""

import os
import struct
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

from phiquant.errors import InputError
from phiquant.host import foreign
from phiquant.host.shown import shown
from phiquant.targets.gguf.block_types import BLOCK_TYPES

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_HEADER = 1 << 25
"""Bytes of fields and tensor infos that are read: several times what the largest vocabularies
take. A sparse file may claim far more and weigh nothing on a disk."""
PIECE = 1 << 20
"""Bytes that are read at a time."""
MAX_TENSORS = 100_000
"""Ten thousand layers, and more."""
MAX_FIELDS = 10_000
MAX_STRINGS = 1 << 20
"""Strings in the arrays of a file; a vocabulary of 200,000 tokens has 450,000 merges."""
MAX_STRING = 1 << 20
"""Bytes of a string, the longest of which are chat templates."""
MAX_NAME = 256
"""Bytes of a name; llama.cpp takes 64 of a tensor's."""

SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
"""struct's format for each scalar value type; Python's arrays have the same letters, but for ?."""
STRING, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` as (rows, ..., columns), `offset` from the start of its file."""

    name: str
    shape: tuple[int, ...]
    type: str
    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of one file."""

    path: Path
    fields: Mapping[str, object]
    tensors: tuple[GgufTensor, ...]


def read_gguf(
    path: Path, kind: foreign.FileKind = foreign.STORED, home: Path | None = None
) -> GgufFile:
    """Read and check the header of the file at `path`, which lies in the directory `home`.

    Raises the error of `kind`.
    """
    with foreign.opened(path, kind, home) as file:
        return _Header(path, file, kind.error).read()


class _Header:
    """A cursor over the file, which is read as far as its header goes."""

    def __init__(self, path: Path, file: BinaryIO, error: type[InputError]) -> None:
        self._path = path
        self._file = file
        self._kind = error
        self._strings = 0
        self._at = 0
        self._size = os.fstat(file.fileno()).st_size
        self._limit = min(self._size, MAX_HEADER)
        self._data = bytearray(file.read(PIECE))

    def read(self) -> GgufFile:
        if not self._data:
            raise self._error("it is empty")
        if not self._data.startswith(MAGIC):
            raise self._error(f"it starts with {bytes(self._data[:4])!r}, not with {MAGIC!r}")
        self._at = 4
        version = self._scalar("<I")
        if version not in VERSIONS:
            raise self._error(f"version {version} is not among {VERSIONS}")
        tensors = self._counted("<Q", 4 + 8 + 8 + 8 + 4, "tensors", MAX_TENSORS)
        count = self._counted("<Q", 8 + 4 + 1, "fields", MAX_FIELDS)
        fields: dict[str, object] = {}
        for _ in range(count):
            key, value = self._field()
            if key in fields:
                raise self._error(f"it holds the field {key!r} twice")
            fields[key] = value
        rows = [self._tensor() for _ in range(tensors)]
        alignment = fields.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or isinstance(alignment, bool) or alignment < 1:
            raise self._error(f"an alignment of {shown(alignment)}")
        start = -(-self._at // alignment) * alignment
        return GgufFile(self._path, fields, self._placed(rows, start, alignment))

    def _error(self, fault: str) -> InputError:
        return self._kind(f"{self._path} is not a sound GGUF file: {fault}")

    def _take(self, nbytes: int) -> int:
        """Pass over `nbytes` bytes that must be there; returns where they start."""
        start = self._at
        if nbytes > self._limit - start:
            if self._limit < self._size:
                raise self._error(f"its header is longer than {MAX_HEADER} bytes")
            raise self._error(f"it ends at byte {self._limit}, inside its header")
        self._at += nbytes
        while len(self._data) < self._at:
            piece = self._file.read(PIECE)
            if not piece:  # it was shortened since
                raise self._error(f"it ends at byte {len(self._data)}, inside its header")
            self._data += piece
        return start

    def _scalar(self, layout: str) -> int | float | bool:
        start = self._take(struct.calcsize(layout))
        value: int | float | bool = struct.unpack_from(layout, self._data, start)[0]
        return value

    def _counted(self, layout: str, least: int, what: str, most: int | None = None) -> int:
        """A count of things that take at least `least` bytes each, at most `most`."""
        count = int(self._scalar(layout))
        if count * least > self._limit - self._at:
            raise self._error(f"it claims {count} {what}, more than its size allows")
        if most is not None and count > most:
            raise self._error(f"it claims {count} {what}, expected at most {most}")
        return count

    def _string(self, most: int = MAX_STRING) -> str:
        length = int(self._scalar("<Q"))
        if length > most:
            raise self._error(f"a text of {length} bytes at byte {self._at}, more than {most}")
        start = self._take(length)
        # Vocabularies by other hands hold pieces of characters; they need not be UTF-8.
        return self._data[start : start + length].decode("utf-8", errors="replace")

    def _field(self) -> tuple[str, object]:
        key = self._string(MAX_NAME)
        return key, self._value(int(self._scalar("<I")), key)

    def _value(self, kind: int, key: str) -> object:
        if kind in SCALARS:
            return self._scalar(SCALARS[kind])
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(key)
        raise self._error(f"the field {key!r} has the unknown value type {kind}")

    def _array(self, key: str) -> object:
        kind = int(self._scalar("<I"))
        if kind == STRING:
            length = self._counted("<Q", 8, f"elements in {key!r}")
            self._strings += length
            if self._strings > MAX_STRINGS:
                raise self._error(f"its arrays hold more than {MAX_STRINGS} texts")
            return tuple(self._string() for _ in range(length))
        if kind not in SCALARS:
            raise self._error(f"the field {key!r} is an array of the unsupported type {kind}")
        layout = SCALARS[kind]
        length = self._counted("<Q", struct.calcsize(layout), f"elements in {key!r}")
        start = self._take(length * struct.calcsize(layout))
        numbers = array(layout[1].replace("?", "B"))
        numbers.frombytes(self._data[start : self._at])
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string(MAX_NAME)
        dimensions = int(self._scalar("<I"))
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise self._error(f"{name} has {dimensions} dimensions")
        extents = [int(self._scalar("<Q")) for _ in range(dimensions)]
        return name, tuple(reversed(extents)), int(self._scalar("<I")), int(self._scalar("<Q"))

    def _placed(
        self, rows: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> tuple[GgufTensor, ...]:
        """The tensors with their places in the file, checked against its size and each other."""
        tensors: dict[str, GgufTensor] = {}
        for name, shape, number, offset in rows:
            if name in tensors:
                raise self._error(f"it holds {name} twice")
            if offset % alignment:
                raise self._error(f"{name} lies at offset {offset}, off the alignment")
            type_name, nbytes = self._stored_size(name, shape, number)
            place = start + offset
            if place + nbytes > self._size:
                raise self._error(
                    f"{name} should end at byte {place + nbytes}, but the file has "
                    f"{self._size}; it is cut off or its header lies"
                )
            tensors[name] = GgufTensor(name, shape, type_name, self._path, place, nbytes)
        ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
        for before, after in pairwise(ordered):
            if before.offset + before.nbytes > after.offset:
                raise self._error(f"{before.name} and {after.name} overlap")
        return tuple(tensors.values())

    def _stored_size(self, name: str, shape: tuple[int, ...], number: int) -> tuple[str, int]:
        kind = BLOCK_TYPES.get(number)
        if kind is None:
            raise self._error(f"{name} has the unknown type {number}")
        if min(shape) < 1 or shape[-1] % kind.weights:
            raise self._error(f"{name} has the shape {list(shape)}, impossible in {kind.name}")
        return kind.name, prod(shape) // kind.weights * kind.nbytes
