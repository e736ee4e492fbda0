"""Which target a path belongs to."""

from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError
from phiquant.targets.table import targets
from phiquant.targets.target import Target


def target_of(path: Path) -> Target[Any]:
    """The target whose format `path`, a file or a directory, holds.

    Raises ArtifactError if there is none.
    """
    if not path.exists():
        raise ArtifactError(f"expected an artifact at {path}, found nothing")
    for target in targets():
        if target.recognises(path):
            return target
    known = ", ".join(target.title for target in targets())
    raise ArtifactError(
        f"{path} is no artifact of a known runtime ({known}); give the directory that "
        "`phiquant quantize` made, or a model file"
    )
