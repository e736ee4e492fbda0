"""A destination that appears whole or not at all.

Work happens in a scratch directory beside the destination, on the same file system; the last
step is one rename. Whatever ends the work earlier, an error or Ctrl-C, leaves nothing behind.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phiquant.errors import DestinationError

LONGEST_PREFIX = 60
"""Characters of the destination's name in the scratch directory's: names end at 255 bytes."""


def check_destination(destination: Path) -> None:
    """DestinationError if `destination` exists, or its parent cannot take it."""
    if os.path.lexists(destination):
        raise DestinationError(
            f"the destination {destination} exists already; choose another `output`, or remove it"
        )
    parent = _nearest(destination.parent)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise DestinationError(f"cannot write into {parent}; choose another `output`")


def free_bytes(destination: Path) -> int:
    """Free disk space where `destination` would lie."""
    return shutil.disk_usage(_nearest(destination.parent)).free


@contextmanager
def staged(destination: Path) -> Iterator[Path]:
    """Yield a scratch directory that becomes `destination` if the block ends normally."""
    check_destination(destination)
    missing = [path for path in destination.parents if not path.exists()]
    scratch = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{destination.name[:LONGEST_PREFIX]}."
        scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
        yield scratch
        scratch.chmod(0o777 & ~_umask())
        _sync_directory(scratch)
        if os.path.lexists(destination):  # rename would silently replace an empty directory
            raise DestinationError(f"the destination {destination} was made by someone else")
        scratch.rename(destination)
        _sync_directory(destination.parent)
    except BaseException:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        for path in missing:
            try:
                path.rmdir()
            except OSError:
                break
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` as UTF-8, whole or not at all, and force it to the disk."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all, and force it to the disk."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name[:LONGEST_PREFIX]}.", delete=False
    ) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            Path(file.name).chmod(0o666 & ~_umask())
            Path(file.name).replace(path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def _nearest(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a directory for syncing
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
