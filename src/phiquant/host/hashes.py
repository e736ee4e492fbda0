"""BLAKE3 of files: what an artifact's record names as its source and its content.

BLAKE3 because SHA-256 would take a good part of the time that making an artifact does; `b3sum FILE`
prints the same. A model from the hub is named by its revision too, which pins every byte.
Source: https://github.com/BLAKE3-team/BLAKE3-specs.
"""

import os
from collections.abc import Iterable
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from threading import Event, Thread
from typing import Self

import numpy as np
import numpy.typing as npt

from phiquant.host.cores import cores
from phiquant.host.opened_file import OpenedFile

BUFFER = 1 << 20
"""Bytes that are read at once: they stay in the processor's cache until they are hashed."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The hashing was asked to stop."""


def hash_files(paths: Iterable[Path], threads: int = 1) -> dict[str, str]:
    """File name → BLAKE3 in hexadecimal."""
    hashes = {}
    for path in paths:
        with path.open("rb", buffering=0) as file:
            digest = Digest(threads)
            digest.read_on(file, os.fstat(file.fileno()).st_size)
        hashes[path.name] = digest.hexdigest()
    return hashes


def hash_opened(files: Iterable[OpenedFile], stop: Event | None = None) -> dict[str, str]:
    """File name → BLAKE3 in hexadecimal, of the bytes that each file had when it was opened.

    Raises Stopped soon after `stop` is set, and a file's error if it is shorter by now.
    """
    from blake3 import blake3

    hashes = {}
    buffer = np.empty(BUFFER, np.uint8)
    for file in files:
        digest = blake3()
        for first in range(0, file.nbytes, BUFFER):
            if stop is not None and stop.is_set():
                raise Stopped
            piece = buffer[: file.nbytes - first]
            file.read_into(piece, first)
            digest.update(piece.data)
        hashes[file.path.name] = str(digest.hexdigest())
    return hashes


def hash_array(array: npt.NDArray[np.generic]) -> str:
    """BLAKE3, in hexadecimal, of an array's bytes in row-major order."""
    from blake3 import blake3

    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    # Not `blake3.AUTO`: its threads are the process's, and a forked process would wait for them.
    return str(blake3(flat.data, max_threads=cores()).hexdigest())


class BackgroundHashes:
    """`hash_opened` in a thread of its own, from the start on; leaving the block ends it.

    The thread is a daemon: a process that ends for another reason does not wait for it.
    """

    def __init__(self, files: Iterable[OpenedFile]) -> None:
        self._stop = Event()
        self._future: Future[dict[str, str]] = Future()
        Thread(target=self._hash, args=(files,), name="phiquant-hashes", daemon=True).start()

    def _hash(self, files: Iterable[OpenedFile]) -> None:
        try:
            self._future.set_result(hash_opened(files, self._stop))
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> dict[str, str]:
        """The hashes, when they are there."""
        return self._future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._stop.set()


class Digest:
    """The hash of a file's first bytes, which goes on as the file grows."""

    def __init__(self, threads: int = 1) -> None:
        from blake3 import blake3

        self.hashed = 0
        """How many bytes."""
        self._digest = blake3(max_threads=threads)
        self._buffer = bytearray(BUFFER * threads)

    def read_on(self, file: FileIO, end: int) -> None:
        """Hash the bytes of `file`, unbuffered and readable, up to `end`; its position moves."""
        file.seek(self.hashed)
        with memoryview(self._buffer) as view:
            while self.hashed < end:
                count = file.readinto(view[: end - self.hashed])
                if not count:
                    raise OSError(f"{file.name} ends at byte {self.hashed}, expected {end}")
                self._digest.update(view[:count])
                self.hashed += count

    def hexdigest(self) -> str:
        """The hash in hexadecimal."""
        return str(self._digest.hexdigest())
