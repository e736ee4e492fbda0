"""A file that is read at given places by several threads, and not mapped.

Where someone shortens a file that is mapped, or its disk fails, the system ends the process that
looks at it (SIGBUS), at any instant and without a word. A read says what happened. It costs a copy
into memory that is used again and again, which is not to be measured beside any rounding.
"""

import errno
import os
import weakref
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from phiquant.errors import InputError
from phiquant.host.foreign import FLAGS

Bytes = npt.NDArray[np.uint8]


class OpenedFile:
    """The file that is at `path` now, whatever takes its place later; closed with the last use.

    `error` is raised where the file ends before what is asked for.
    """

    def __init__(self, path: Path, error: type[InputError] = InputError) -> None:
        self.path = path
        self._error = error
        self._handle = os.open(path, FLAGS)
        self._turn = Lock()
        # At the end of the program a thread may still be reading; the system closes it then.
        weakref.finalize(self, os.close, self._handle).atexit = False
        self.nbytes = os.fstat(self._handle).st_size
        """Its size when it was opened."""

    def read(self, offset: int, nbytes: int) -> Bytes:
        """The bytes from `offset` on, in memory of their own."""
        into = np.empty(nbytes, np.uint8)
        self.read_into(into, offset)
        return into

    def read_into(self, into: Bytes, offset: int) -> None:
        """Fill `into` with the bytes from `offset` on. Raises the file's error if it has fewer, and
        OSError if the disk fails.
        """
        try:
            with into.data as left:
                done = 0
                while done < len(left):
                    count = self._read_some(left[done:], offset + done)
                    if not count:
                        raise self._shortened(offset + len(left))
                    done += count
        except OSError as error:
            number = error.errno or errno.EIO
            raise OSError(number, os.strerror(number), str(self.path)) from error

    def read_ahead(self, offset: int, nbytes: int) -> None:
        """Ask the system to fetch some bytes; a no-op where it cannot be asked."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._handle, offset, nbytes, os.POSIX_FADV_WILLNEED)

    def _read_some(self, into: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._handle, [into], offset)
        with self._turn:  # Windows has no read that leaves the file's position alone
            os.lseek(self._handle, offset, os.SEEK_SET)
            data = os.read(self._handle, min(len(into), 1 << 20))
        into[: len(data)] = data
        return len(data)

    def _shortened(self, end: int) -> InputError:
        size = os.fstat(self._handle).st_size
        return self._error(
            f"{self.path} ends at byte {size:,}, expected {end:,}: it was shortened while it was "
            "read; run the command again once nothing writes to it, or download it again"
        )


def read_at(path: Path, offset: int, nbytes: int, error: type[InputError] = InputError) -> Bytes:
    """Some bytes of a file that is opened for them alone. Raises as `OpenedFile.read_into` does."""
    return OpenedFile(path, error).read(offset, nbytes)
