"""A lock on a path that a dead process does not hold.

The system's own advisory locks (flock; on Windows msvcrt.locking) end with the process that holds
them, however it ends. The lock is on a file beside the path, which goes when it is released. A
process that locks a file which another has just removed holds nothing, so that is looked at.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Lock:
    """An exclusive lock by the file at `path`, made for it. Use as `with Lock.take(...)`."""

    def __init__(self, path: Path, handle: int, *, remove: bool) -> None:
        self.path = path
        self._remove = remove
        self.handle = handle
        """Of the open file, for reading and writing."""

    @classmethod
    def take(cls, path: Path, *, remove: bool = True) -> "Lock | None":
        """The lock, or None if another process, or another part of this one, holds it.

        With `remove` the file goes with the lock.
        """
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _locked(handle):
                    os.close(handle)
                    return None
                if _is_at(handle, path):
                    return cls(path, handle, remove=remove)
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)

    def release(self) -> None:
        """Let go of the file; where it is to go, it is removed first if the system can do that."""
        if self._remove and sys.platform != "win32":
            self.path.unlink(missing_ok=True)
        with suppress(OSError):  # who wrote to the file may have closed it
            os.close(self.handle)
        if self._remove and sys.platform == "win32":
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *ended: object) -> None:
        self.release()


def _locked(handle: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (named.st_dev, named.st_ino)
