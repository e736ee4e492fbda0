"""A destination that appears whole or not at all, and what a job keeps beside it meanwhile.

    .NAME.phiquant-lock      held by the process that makes NAME; a dead one does not hold it
    .NAME.phiquant-partial   what is being made; its rename to NAME is the last step
    .NAME.phiquant-journal   what a calibrated run has done so far; a later one goes on with it
    .NAME.phiquant-inside    a single file that is to lie in NAME, beside what the job makes
    .NAME.phiquant-new-*     a single file that is to replace NAME, locked while it is written

All lie beside the destination, on the same file system. Whatever ends the work earlier, an error
or Ctrl-C, removes lock and partial. A kill that nothing can answer leaves them; who takes the lock
next removes the partial, and so does `phiquant clean`.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phiquant.errors import DestinationError
from phiquant.host.lock import Lock
from phiquant.host.rename import rename_new

LONGEST = 180
"""Bytes of a destination's name in a name beside it: names end at 255 bytes."""
LOCK, PARTIAL, JOURNAL, INSIDE, NEW = "lock", "partial", "journal", "inside", "new"
KINDS = (LOCK, PARTIAL, JOURNAL, INSIDE, NEW)


def beside(destination: Path, kind: str) -> Path:
    """Where a job for `destination` keeps what is of `kind`."""
    name = destination.name
    if len(os.fsencode(name)) > LONGEST:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        name = f"{name[: LONGEST // 4]}-{digest}"
    return destination.with_name(f".{name}.phiquant-{kind}")


@dataclass(frozen=True, slots=True)
class Place:
    """A destination whose lock this process holds."""

    destination: Path

    @property
    def journal(self) -> Path:
        """The directory that a calibrated run keeps."""
        return beside(self.destination, JOURNAL)


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
def held(destination: Path) -> Iterator[Place]:
    """Hold the lock on `destination`, whose parents are made; what a dead job left goes.

    Raises DestinationError if it exists, cannot be made, or another job is making it.
    """
    check_destination(destination)
    missing = [path for path in destination.parents if not path.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(beside(destination, LOCK))
        if lock is None:
            raise DestinationError(
                f"another phiquant is making {destination} at this moment; wait for it, or choose "
                "another `output`"
            )
        with lock:
            check_destination(destination)  # it may have been made while the lock was another's
            for kind in (PARTIAL, INSIDE):
                _remove(beside(destination, kind))
            yield Place(destination)
    except BaseException:
        for path in missing:
            try:
                path.rmdir()
            except OSError:
                break
        raise


@contextmanager
def staged(place: Place) -> Iterator[Path]:
    """Yield a scratch directory that becomes the destination if the block ends normally."""
    scratch = beside(place.destination, PARTIAL)
    scratch.mkdir()
    try:
        yield scratch
        _sync_directory(scratch)
        _appear(scratch, place.destination)
    except BaseException:
        _remove(scratch)
        raise


@contextmanager
def staged_file(place: Place, path: Path | None = None) -> Iterator[Path]:
    """Yield where a file is to be written that becomes the destination if the block ends normally.

    With `path`, it becomes that: a path inside of the destination, which another block makes
    meanwhile. Raises DestinationError if something else was put there.
    """
    new = beside(place.destination, PARTIAL if path is None else INSIDE)
    try:
        yield new
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        _appear(new, place.destination if path is None else path)
    except BaseException:
        _remove(new)
        raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` as UTF-8, whole or not at all, and force it to the disk."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, whole or not at all, and force it to the disk."""
    new = beside(path, f"{NEW}-{secrets.token_hex(8)}")
    lock = Lock.take(new)
    assert lock is not None  # no one else has the name
    with lock:
        with open(lock.handle, "wb", closefd=os.name == "nt") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)  # Windows renames no open file
        _sync_directory(path.parent)


def _appear(new: Path, destination: Path) -> None:
    """The last step: `new` becomes `destination`, which nothing must be at."""
    try:
        rename_new(new, destination)
    except (FileExistsError, NotADirectoryError) as error:
        raise DestinationError(
            f"the destination {destination} was made by someone else; choose another `output`, or "
            "remove it"
        ) from error
    _sync_directory(destination.parent)


def _remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _nearest(path: Path) -> Path:
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _sync_directory(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a directory for syncing
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
