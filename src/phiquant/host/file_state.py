"""Whether a file is still the one that was opened, with the content that it had then.

A system notes every write to a file, also through a mapping, in the time of its last change
(ctime), which no program can set. A file that was replaced has another number.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells a file, and each of its contents, from others."""

    device: int
    number: int
    size: int
    changed: int
    """Nanoseconds; on Windows the time of the last write."""


def file_state(path: Path) -> FileState:
    """The state of the file at `path`. Raises OSError."""
    seen = path.stat()
    changed = seen.st_mtime_ns if os.name == "nt" else seen.st_ctime_ns
    return FileState(seen.st_dev, seen.st_ino, seen.st_size, changed)


def is_still(path: Path, state: FileState) -> bool:
    """Whether the file at `path` is in that state."""
    try:
        return file_state(path) == state
    except OSError:
        return False
