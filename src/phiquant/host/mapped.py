"""Arrays in files, mapped: what must outlive a job's memory, or the job itself.

The room is set aside before a file is mapped. A full disk then shows as an OSError where the array
is made; in a sparse file it would be a SIGBUS at some write much later, which ends the process
without a word.
"""

import errno
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""What file systems say that cannot set space aside; they grow the file as it is written."""


def reserve(handle: int, size: int) -> None:
    """Set `size` bytes aside for an open file where the system can. OSError if the disk is full."""
    if hasattr(os, "posix_fallocate") and size:
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
    os.truncate(handle, size)


def new_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """A new file of zeros at `path` as a writable array; its bytes are the array's, row-major.

    Raises OSError with ENOSPC if the disk has no room for all of it.
    """
    size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
    with path.open("wb") as file:
        reserve(file.fileno(), size)
    return np.memmap(path, dtype, "r+", shape=shape)


def old_array(
    path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...], *, writable: bool = False
) -> npt.NDArray[np.generic]:
    """The array that `new_array` made. Raises OSError or ValueError for a file of another size."""
    return np.memmap(path, dtype, "r+" if writable else "r", shape=shape)


def force(array: npt.NDArray[np.generic], path: Path) -> None:
    """Force what was written to a mapped array, or to a part of it, to the disk."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if isinstance(whole, np.memmap):
        whole.flush()
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
