"""What passes between a process and the child that runs an artifact: plain values, and arrays.

    u32   bytes of the document        little-endian
    u64   bytes of the array that follows the document, 0 for none
    document: JSON, with "shape" where an array follows
    the array: float32, in C order

The child may be in the hands of whoever made the artifact. So nothing that it says is executed or
built into objects, and a frame larger than what was asked for is refused before it is read.
"""

import json
import os
import struct
from math import prod
from typing import IO, Any

import numpy as np

from phiquant.quantization.grid import Floats

HEAD = struct.Struct("<IQ")
NO_LIMIT = 1 << 31
PIPE_SIZE = 1 << 20
"""Bytes that a pipe should hold, where Linux lets it: fewer turns from one process to the other."""

Document = dict[str, Any]


class BrokenFrameError(Exception):
    """What came is no frame, or not one that was asked for."""


def send(stream: IO[bytes], document: Document, array: Floats | None = None) -> None:
    """Write one frame to an unbuffered stream."""
    if array is None:
        body = json.dumps(document).encode("ascii")
        _write(stream, memoryview(HEAD.pack(len(body), 0) + body))
        return
    array = np.ascontiguousarray(array, "<f4")
    body = json.dumps(document | {"shape": list(array.shape)}).encode("ascii")
    _write(stream, memoryview(HEAD.pack(len(body), array.nbytes) + body))
    if array.nbytes:
        _write(stream, array.data.cast("B"))


def receive(
    stream: IO[bytes], longest: int = NO_LIMIT, shape: tuple[int, int] | None = None
) -> tuple[Document, Floats]:
    """Read one frame from an unbuffered stream; the array is empty where there is none.

    The document may have `longest` bytes, the array as many as one of `shape`.
    Raises EOFError where the stream ends, BrokenFrameError for anything but such a frame.
    """
    length, nbytes = HEAD.unpack(_read(stream, bytearray(HEAD.size)))
    if length > longest or nbytes > (4 * prod(shape) if shape else 0):
        raise BrokenFrameError(f"a frame of {length} and {nbytes} bytes")
    try:
        document = json.loads(bytes(_read(stream, bytearray(length))))
    except (ValueError, RecursionError) as error:
        raise BrokenFrameError(f"no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BrokenFrameError("no JSON object")
    if not nbytes:
        return document, np.empty((0, 0), np.float32)
    dimensions = document.get("shape")
    if (
        not isinstance(dimensions, list)
        or len(dimensions) != 2
        or not all(type(n) is int for n in dimensions)
    ):
        raise BrokenFrameError("an array without a shape")
    if min(dimensions) < 0 or 4 * prod(dimensions) != nbytes:
        raise BrokenFrameError(f"an array of shape {dimensions} in {nbytes} bytes")
    array = np.empty(dimensions, "<f4")
    _read(stream, array.data.cast("B"))
    return document, array


def widen_pipe(descriptor: int) -> None:
    """Let the pipe hold more at once."""
    try:
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (ImportError, AttributeError, OSError):  # not Linux, or beyond what users may have
        return


def _write(stream: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[os.write(stream.fileno(), data) :]


def _read(stream: IO[bytes], into: bytearray | memoryview) -> bytearray | memoryview:
    rest = memoryview(into)
    while rest:
        count = stream.readinto(rest)  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        rest = rest[count:]
    return into
