"""llama.cpp's files of importance matrices: sums over every matrix's inputs, and of their squares.

Two encodings. As GGUF, which `llama-imatrix` writes unless told otherwise:

    fields    general.type "imatrix" | imatrix.datasets [string]
              imatrix.chunk_count u32 | imatrix.chunk_size u32, tokens in a chunk
    tensors   <name>.in_sum2 F32, a sum of squares a column | <name>.counts F32, tokens seen
              <name>.in_sum F32, a plain sum a column; llama.cpp reads past it so far, and writes
              it by a change that is proposed (https://github.com/ggml-org/llama.cpp/pull/14891)

and the older one, usually called `.dat`, little-endian and without a mark of its own:

    entries i32
    each      length i32, name | calls i32 | columns i32 | F32 each: mean square times calls
    then, where the file goes on:  calls of the whole i32 | length i32, name of the text

Either way a mean square is the sum over the count, in float32, and so it is read here. A count
of zero means that nothing was seen: llama-quantize then weighs all columns alike in the GGUF
encoding and takes the sums as they stand in the older one. Every size is checked against the
bytes that are there.
Source: tools/imatrix/imatrix.cpp and common/imatrix-loader.cpp of llama.cpp.
"""

import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phiquant.errors import InputError, MissingDependency
from phiquant.host import foreign
from phiquant.host.opened_file import OpenedFile, read_at
from phiquant.host.shown import shown
from phiquant.host.staging import write_bytes
from phiquant.quantization.grid import Floats
from phiquant.targets.gguf.file import MAGIC, GgufTensor, read_gguf
from phiquant.targets.gguf.metadata import ARCHITECTURE
from phiquant.targets.importance import ImatrixDataset, ImatrixEntry

LEGACY = ".dat"
"""The suffix that asks for the older encoding when a file is written; reading looks inside."""

SUMS, COUNTS, PLAIN = ".in_sum2", ".counts", ".in_sum"
LEAST_ENTRY = 4 + 1 + 4 + 4 + 4
"""Bytes of the smallest entry in the older encoding."""
MOST_ENTRIES = 100_000
"""Matrices of ten thousand layers, and more."""
LONGEST_NAME = 4096
"""Bytes of a matrix's name, or of the text's."""


def read_imatrix(path: Path) -> dict[str, ImatrixEntry]:
    """The entries of the file at `path` by llama.cpp's tensor names, values as they are stored.

    Raises InputError for a file that is neither encoding or not sound.
    """
    with foreign.opened(path, foreign.IMATRIX) as file:
        head = file.read(len(MAGIC))
    if head == MAGIC:
        return _read_gguf(path)
    if not head:
        raise InputError(f"expected an importance matrix in {path}, found an empty file")
    return dict(_Legacy(OpenedFile(path)).entries())


def write_imatrix(
    path: Path,
    entries: Mapping[str, ImatrixEntry],
    text: ImatrixDataset,
    suffix: str | None = None,
) -> None:
    """Write `entries` by llama.cpp's tensor names, whole or not at all.

    `suffix` is that of the name under which the file will be read, by default the path's own;
    `.dat` asks for the older encoding.
    """
    older = (path.suffix if suffix is None else suffix) == LEGACY
    data = _legacy_bytes(entries, text) if older else _gguf_bytes(entries, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, data)


def _read_gguf(path: Path) -> dict[str, ImatrixEntry]:
    header = read_gguf(path, foreign.IMATRIX)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = {
        name.removesuffix(suffix)
        for name in tensors
        for suffix in (SUMS, COUNTS)
        if name.endswith(suffix)
    }
    if not names:
        kind = header.fields.get("general.type", "unknown")
        raise InputError(
            f"expected an importance matrix in {path}, found GGUF of the type {shown(kind)} "
            f"without a tensor whose name ends in {SUMS}; make one with llama-imatrix or "
            "`imatrix.write`"
        )
    return {name: _entry(path, name, tensors) for name in sorted(names)}


def _entry(path: Path, name: str, tensors: Mapping[str, GgufTensor]) -> ImatrixEntry:
    stored = [tensors.get(name + suffix) for suffix in (SUMS, COUNTS, PLAIN)]
    sums, counts, plain = (_values(path, tensor) if tensor else None for tensor in stored)
    if sums is None or counts is None:
        raise InputError(f"{path} has {SUMS} or {COUNTS} of {name}, not both; make it anew")
    if counts.size != 1:
        raise InputError(
            f"{path} counts {counts.size} matrices in {name}, expected one; it was made for a "
            "mixture of experts, which no Phi model covered here is"
        )
    count = float(counts[0])
    if not 0 <= count < 2**63:  # also false for a NaN
        raise InputError(f"{path} counts {count} tokens for {name}; make it anew")
    if plain is not None and plain.size != sums.size:
        raise InputError(f"{path} has {plain.size} {PLAIN} of {name} and {sums.size} {SUMS}")
    return ImatrixEntry(sums, round(count), plain)


def _values(path: Path, tensor: GgufTensor) -> Floats:
    if tensor.type != "F32":
        raise InputError(f"expected F32 for {tensor.name} in {path}, found {tensor.type}")
    return read_at(path, tensor.offset, tensor.nbytes).view("<f4")


class _Legacy:
    """A cursor over a file in the older encoding."""

    def __init__(self, file: OpenedFile) -> None:
        self._file, self._at = file, 0

    def entries(self) -> Iterator[tuple[str, ImatrixEntry]]:
        count = self._integer()
        if not 1 <= count <= min(self._file.nbytes // LEAST_ENTRY, MOST_ENTRIES):
            raise self._error(f"{count} entries, which its {self._file.nbytes} bytes cannot be")
        seen: set[str] = set()
        for _ in range(count):
            name = self._text()
            if name in seen:
                raise self._error(f"{name!r} twice")
            seen.add(name)
            calls, columns = self._integer(), self._integer()
            if calls < 0 or columns < 1:
                raise self._error(f"{calls} calls and {columns} columns for {name!r}")
            sums = self._take(4 * columns).view("<f4")
            yield name, ImatrixEntry(sums, max(calls, 1))
        if self._at < self._file.nbytes:
            self._integer()
        if self._at < self._file.nbytes:
            self._text()
        if self._at < self._file.nbytes:
            raise self._error(f"{self._file.nbytes - self._at} bytes too many")

    def _error(self, fault: str) -> InputError:
        return InputError(
            f"{self._file.path} is no importance matrix that llama.cpp writes, neither GGUF nor "
            f"the older encoding: it has {fault}"
        )

    def _take(self, nbytes: int) -> npt.NDArray[np.uint8]:
        left = self._file.nbytes - self._at
        if nbytes > left:
            raise self._error(f"{left} bytes from byte {self._at} on where {nbytes} should follow")
        self._at += nbytes
        return self._file.read(self._at - nbytes, nbytes)

    def _integer(self) -> int:
        value: int = struct.unpack("<i", self._take(4).tobytes())[0]
        return value

    def _text(self) -> str:
        length = self._integer()
        if not 0 <= length <= LONGEST_NAME:
            raise self._error(f"a name of {length} bytes")
        return self._take(length).tobytes().decode("utf-8", errors="replace")


def _legacy_bytes(entries: Mapping[str, ImatrixEntry], text: ImatrixDataset) -> bytes:
    def counted(word: str) -> bytes:
        data = word.encode()
        return struct.pack("<i", len(data)) + data

    data = struct.pack("<i", len(entries))
    for name, entry in sorted(entries.items()):
        calls = text.chunks(entry.count)
        data += counted(name) + struct.pack("<ii", calls, entry.sums.size)
        data += (entry.inputs.squares * np.float32(calls)).astype("<f4").tobytes()
    calls = max(text.chunks(entry.count) for entry in entries.values())
    return data + struct.pack("<i", calls) + counted(text.name)


def _gguf_bytes(entries: Mapping[str, ImatrixEntry], text: ImatrixDataset) -> bytes:
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise MissingDependency("gguf", "writing GGUF files") from error
    with tempfile.TemporaryDirectory() as scratch:  # the package writes to files only
        path = Path(scratch) / "imatrix.gguf"
        writer = GGUFWriter(path, ARCHITECTURE)
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [text.name])
        chunks = max(text.chunks(entry.count) for entry in entries.values())
        writer.add_uint32("imatrix.chunk_count", chunks)
        writer.add_uint32("imatrix.chunk_size", text.chunk_size)
        for name, entry in sorted(entries.items()):
            writer.add_tensor(name + SUMS, np.asarray(entry.sums, np.float32))
            writer.add_tensor(name + COUNTS, np.array([entry.count], np.float32))
            if entry.plain is not None:
                writer.add_tensor(name + PLAIN, np.asarray(entry.plain, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
