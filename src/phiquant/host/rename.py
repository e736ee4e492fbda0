"""A rename that never replaces anything.

POSIX's rename replaces an empty directory in silence. Linux (renameat2) and macOS (renamex_np) can
be told not to; Windows never does. Where neither is at hand, the destination is looked at just
before, which leaves a moment.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path

AT_FDCWD = -100
RENAME_NOREPLACE = 1
RENAME_EXCL = 4
UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
"""What says that the system, or the file system, cannot."""


def rename_new(source: Path, destination: Path) -> None:
    """Rename `source`. FileExistsError if anything is at `destination`, a broken link included."""
    number = _exclusively(os.fsencode(source), os.fsencode(destination))
    if number == 0:
        return
    if number not in UNKNOWN:
        raise OSError(number, os.strerror(number), str(source), None, str(destination))
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    source.rename(destination)


def _exclusively(source: bytes, destination: bytes) -> int:
    """The error's number, 0 for none."""
    if sys.platform == "win32":
        return errno.ENOSYS  # `rename` there is what is wanted
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        failed = library.renameat2(AT_FDCWD, source, AT_FDCWD, destination, RENAME_NOREPLACE)
    elif sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(source, destination, RENAME_EXCL)
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0
