"""Where the files of an artifact may lie, which a runtime is about to open by their names.

What a link may lead to is `foreign.is_within`'s to say: any other would have the runtime read a
file of whoever's machine it is.
"""

from collections.abc import Iterator
from pathlib import Path

from phiquant.errors import ArtifactError
from phiquant.host import foreign


def check_links(path: Path) -> None:
    """Raise ArtifactError for a link out of the artifact at `path`, a directory or a file."""
    if _is_directory(path):
        foreign.check_directory(_home(path), ArtifactError)
        return
    for file in _siblings(path):
        foreign.check_file(file, foreign.STORED, path.parent)


def places_of(path: Path) -> tuple[Path, ...]:
    """What the artifact at `path` consists of: its directory, or the file and those of its kind
    beside it, and the files elsewhere that links may lead to.
    """
    home = _home(path)
    own = [home] if _is_directory(path) else [file.resolve() for file in _siblings(path)]
    linked = (entry for entry in _entries(path) if entry.is_symlink())
    return (*own, *(entry.resolve() for entry in linked if foreign.is_within(entry, home)))


def _is_directory(path: Path) -> bool:
    """Whether a path stands for a directory: a graph's file (.xml) does for the one it is in."""
    return path.is_dir() or path.suffix == ".xml"


def _home(path: Path) -> Path:
    return (path if path.is_dir() else path.parent).resolve()


def _siblings(path: Path) -> list[Path]:
    """The file and its further parts, if it is one of several."""
    return [path, *path.parent.glob(f"*{path.suffix}")] if path.suffix else [path]


def _entries(path: Path) -> Iterator[Path]:
    return foreign.entries(_home(path)) if _is_directory(path) else iter(_siblings(path))
