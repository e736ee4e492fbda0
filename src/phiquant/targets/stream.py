"""A file whose layout is known before its first byte is written.

The plan fixes every tensor's size, hence every offset. So the header goes first, and bands of
tensors land at their places in whatever order the checkpoint yields them.

The file is forced to the disk every so often while it is written, so that the disk works
alongside the rounding and closing has little left to wait for.
"""

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

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
        self._file = path.open("xb", buffering=0)
        self._unsynced = 0
        try:
            self._reserve(size)
            self._write(memoryview(header))
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
        self._file.seek(offset)
        self._write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _write(self, data: memoryview) -> None:
        self._unsynced += data.nbytes
        while data:
            data = data[self._file.write(data) :]
        if self._unsynced >= SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def close(self) -> None:
        """Force the bytes to the disk and close the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
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
