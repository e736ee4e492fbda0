"""Where the files of an artifact may lie, which a runtime is about to open by their names.

The hub's cache keeps files under their hashes in `blobs`, and a model's directory is full of links
to them. Any other link out of the directory would have the runtime read a file of whoever's machine
it is.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from phiquant.errors import ArtifactError

BLOBS, SNAPSHOTS = "blobs", "snapshots"
"""The hub's cache: MODEL/blobs/HASH and MODEL/snapshots/COMMIT/NAME."""


def check_links(path: Path) -> None:
    """Raise ArtifactError for a link out of the artifact at `path`, a directory or a file."""
    home = _home(path)
    for entry, target in _links(path):
        if not target.is_relative_to(home) and target.parent not in _blobs(home):
            raise ArtifactError(
                f"{entry.name} is a link to {target}, outside of the artifact's directory; put the "
                "file itself there if it belongs to the artifact"
            )


def places_of(path: Path) -> tuple[Path, ...]:
    """What the artifact at `path` consists of: its directory, or the file and those of its kind
    beside it, and the files elsewhere that links may lead to.
    """
    home = _home(path)
    own = [home] if _is_directory(path) else [entry.resolve() for entry in _siblings(path)]
    return (*own, *(target for _, target in _links(path) if target.parent in _blobs(home)))


def _is_directory(path: Path) -> bool:
    """Whether a path stands for a directory: a graph's file (.xml) does for the one it is in."""
    return path.is_dir() or path.suffix == ".xml"


def _home(path: Path) -> Path:
    return (path if path.is_dir() else path.parent).resolve()


def _siblings(path: Path) -> list[Path]:
    """The file and its further parts, if it is one of several."""
    return [path, *path.parent.glob(f"*{path.suffix}")] if path.suffix else [path]


def _links(path: Path) -> Iterator[tuple[Path, Path]]:
    """Every link among the artifact's files, and the file or folder to which it leads."""
    for entry in _entries(path):
        if entry.is_symlink():
            yield entry, entry.resolve()


def _entries(path: Path) -> Iterator[Path]:
    if not _is_directory(path):
        yield from _siblings(path)
        return
    for folder, folders, files in os.walk(_home(path)):
        yield from (Path(folder, name) for name in (*folders, *files))


def _blobs(home: Path) -> tuple[Path, ...]:
    """The folder to which the hub's cache links from `home`, a snapshot or a folder in one."""
    return tuple(
        folder.parent.parent / BLOBS
        for folder in (home, *home.parents)
        if folder.parent.name == SNAPSHOTS
    )
