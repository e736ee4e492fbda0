"""A file whose layout is known before its first byte is written.

The plan fixes every tensor's size, hence every offset. So the header goes first, and bands of
tensors land at their places in whatever order the checkpoint yields them.

The file is forced to the disk every so often while it is written, so that the disk works
alongside the rounding and closing has little left to wait for. Its hash follows: what lies
without a hole before the furthest band is hashed from the page cache, and then leaves that cache.
An artifact of gigabytes so takes none of the memory that the checkpoint is read through; filling
fresh memory can cost more than all the rest of writing, above all in virtual machines. The price
is that whoever opens the artifact next reads it from the disk.
"""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from phiquant.host.hashes import Digest
from phiquant.targets.extents import Extents

SYNC_EVERY = 64 << 20
"""Bytes between two syncs."""

CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What file systems say that cannot set space aside; they grow the file as it is written."""


class StreamedFile:
    """A new file of exactly `size` bytes that starts with `header`.

    The disk space is reserved at once where the system can, so that a disk too small shows
    before the work and not after it (OSError with ENOSPC). Not thread-safe: one thread writes.
    """

    def __init__(self, path: Path, header: bytes, size: int) -> None:
        self.path = path
        self.hash = ""
        """BLAKE3 of the file in hexadecimal, once it is closed."""
        self._size = size
        self._unsynced = 0
        self._mapped = False
        self._was_solid = 0
        self._late = False
        self._extents = Extents()
        self._digest = Digest()
        self._file = path.open("x+b", buffering=0)
        try:
            self._reserve(size)
            self._write(0, memoryview(header))
        except BaseException:
            self._file.close()
            raise

    def _reserve(self, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._file.fileno(), 0, size)
            except OSError as error:
                if error.errno not in CANNOT_RESERVE:
                    raise
        self._file.truncate(size)

    def put(self, offset: int, array: npt.NDArray[np.generic]) -> None:
        """Write the bytes of `array`, in row-major order, at `offset`."""
        self._write(offset, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def map(self) -> np.memmap[tuple[int], np.dtype[np.uint8]]:
        """The bytes of the file, mapped for writing; it is then hashed on closing alone."""
        self._mapped = True
        self._digest = Digest()
        return np.memmap(self.path, np.uint8, "r+")

    def _write(self, offset: int, data: memoryview) -> None:
        self._unsynced += data.nbytes
        self._late |= offset < self._digest.hashed
        self._extents.add(offset, offset + data.nbytes)
        self._file.seek(offset)
        while data:
            data = data[self._file.write(data) :]
        if self._unsynced >= SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0
        if not self._mapped:
            self._hash_to(self._was_solid)  # a short hole before that has been filled since
        self._was_solid = self._extents.solid

    def _hash_to(self, end: int) -> None:
        """Hash on to `end`, and let go of what is hashed."""
        first = self._digest.hashed
        if end <= first:
            return
        self._digest.read_on(self._file, end)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), first, end - first, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Force the bytes to the disk, finish the hash and close the file."""
        if self._file.closed:
            return
        os.fsync(self._file.fileno())
        if self._late:  # it is rare, and costs another reading
            self._digest = Digest()
        self._hash_to(self._size)
        self.hash = self._digest.hexdigest()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()
