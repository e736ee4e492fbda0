"""BLAKE3 of files: what an artifact's record names as its source and its content.

BLAKE3 because SHA-256 would take a good part of the time that making an artifact does; `b3sum FILE`
prints the same. A model from the hub is named by its revision too, which pins every byte.
Source: https://github.com/BLAKE3-team/BLAKE3-specs.
"""

import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from threading import Event

PIECE = 16 << 20
"""Bytes between two looks at whether to stop."""


class Stopped(Exception):  # noqa: N818 (it is no error)
    """The hashing was asked to stop."""


def hash_files(
    paths: Iterable[Path], stop: Event | None = None, threads: int = 1
) -> dict[str, str]:
    """File name → BLAKE3 in hexadecimal. Raises Stopped soon after `stop` is set."""
    return {path.name: _hash(path, stop, threads) for path in paths}


def _hash(path: Path, stop: Event | None, threads: int) -> str:
    from blake3 import blake3

    digest = blake3(max_threads=threads)
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:  # nothing that could be mapped
            return str(digest.hexdigest())
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            whole = memoryview(mapped)
            try:
                for first in range(0, len(whole), PIECE):
                    if stop is not None and stop.is_set():
                        raise Stopped
                    with whole[first : first + PIECE] as piece:
                        digest.update(piece)
            finally:
                whole.release()
    return str(digest.hexdigest())
