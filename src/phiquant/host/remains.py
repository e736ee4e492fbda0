"""What dead jobs left: found by its names beside destinations, and removed under their locks."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phiquant.host.lock import Lock
from phiquant.host.staging import INSIDE, JOURNAL, KINDS, LOCK, NEW, PARTIAL, beside

MARK = ".phiquant-"


@dataclass(frozen=True, slots=True)
class Remains:
    """One file or directory that a job left, or that a job at work keeps."""

    path: Path
    kind: str
    """What it is: see `staging`."""
    nbytes: int
    alive: bool
    """Whether the job that keeps it is at work."""

    @property
    def resumable(self) -> bool:
        """Whether the same command would go on with it."""
        return self.kind == JOURNAL


def remains_in(directory: Path) -> tuple[Remains, ...]:
    """What jobs left in `directory`, by name; nothing is removed."""
    return tuple(
        Remains(path, kind, _nbytes(path), alive)
        for path, kind, lock in _marked(directory)
        for alive in (_is_held(lock),)
        if kind != LOCK or not alive
    )


def kept_bytes(destination: Path) -> int:
    """Bytes that dead jobs for `destination` keep on the disk."""
    return sum(_nbytes(path) for path in _kept(destination) if os.path.lexists(path))


def _kept(destination: Path) -> Iterator[Path]:
    yield from (beside(destination, kind) for kind in (PARTIAL, INSIDE, JOURNAL))


def remove(remains: Remains) -> bool:
    """Remove what a dead job left; False, and nothing goes, if a job came for it meanwhile."""
    lock_path = _lock_of(remains.path, remains.kind)
    lock = Lock.take(lock_path)
    if lock is None:
        return False
    with lock:
        if remains.path == lock_path:
            return True  # it goes with its release
        if remains.path.is_dir() and not remains.path.is_symlink():
            shutil.rmtree(remains.path)
        else:
            remains.path.unlink(missing_ok=True)
    return True


def _marked(directory: Path) -> Iterator[tuple[Path, str, Path]]:
    """Every marked path with its kind and the path of its lock."""
    for path in sorted(directory.glob(f".*{MARK}*")):
        word = path.name.rpartition(MARK)[2]
        kind = NEW if word.startswith(f"{NEW}-") else word
        if kind in KINDS:
            yield path, kind, _lock_of(path, kind)


def _lock_of(path: Path, kind: str) -> Path:
    if kind == NEW:
        return path
    return path.with_name(f"{path.name.rpartition(MARK)[0]}{MARK}{LOCK}")


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = Lock.take(path, remove=False)
    if lock is None:
        return True
    lock.release()
    return False


def _nbytes(path: Path) -> int:
    """Bytes on the disk, which for a file with holes are less than its size."""
    files = [path] if path.is_symlink() or not path.is_dir() else path.rglob("*")
    return sum(_on_disk(file.lstat()) for file in files)


def _on_disk(seen: os.stat_result) -> int:
    return int(getattr(seen, "st_blocks", -(-seen.st_size // 512))) * 512
