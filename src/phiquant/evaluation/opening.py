"""Which target a path belongs to."""

from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.targets.table import targets
from phiquant.targets.target import Target


def target_of(path: Path) -> Target[Any]:
    """The target whose format `path`, a file or a directory, holds.

    Its runtime may open whatever lies in a directory, so that is looked at first. Raises
    ArtifactError if there is no such target, or something that is no file.
    """
    if not path.exists():
        raise ArtifactError(f"expected an artifact at {path}, found nothing")
    for target in targets():
        if target.recognises(path):
            if path.is_dir():
                foreign.check_directory(path, ArtifactError)
            return target
    known = ", ".join(target.title for target in targets())
    raise ArtifactError(
        f"{path} is no artifact of a known runtime ({known})"
        + (
            artifacts_in(path)
            or "; give the directory that `phiquant quantize` made, or a model file"
        )
    )


def artifacts_in(path: Path) -> str:
    """Which artifacts lie in the directory `path`, to be added to a sentence; empty for none."""
    names = sorted(
        inner.name
        for inner in (path.iterdir() if path.is_dir() else ())
        if inner.is_dir() and any(target.recognises(inner) for target in targets())
    )
    return f"; it holds the artifacts {', '.join(names[:8])}: give one of them" if names else ""
