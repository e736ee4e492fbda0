"""Finding the GGUF file, or the files of a split one, that a path stands for."""

import re
from pathlib import Path

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.targets.gguf.file import MAGIC

SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
"""How llama.cpp names the files of one model that is stored in several."""


def is_gguf(path: Path) -> bool:
    """Whether `path` is a file that starts like GGUF or a directory that holds a `*.gguf`."""
    if path.is_dir():
        return any(path.glob("*.gguf"))
    if not path.is_file():
        return False
    with foreign.opened(path, foreign.STORED) as file:
        return file.read(len(MAGIC)) == MAGIC


def gguf_files(path: Path) -> tuple[Path, ...]:
    """The file at `path` or the one in the directory `path`; all of them if it is split.

    Raises ArtifactError if there is none, if there are several models, or if a part is missing.
    """
    if not path.is_dir():
        if not foreign.present(path):
            raise ArtifactError(f"expected a GGUF file or a directory with one, found no {path}")
        return _with_parts(path)
    files = sorted(path.glob("*.gguf"))
    models = {_with_parts(file)[0] for file in files}
    if len(models) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise ArtifactError(f"expected one GGUF model in {path}, found {names}; name the file")
    return _with_parts(models.pop())


def _with_parts(file: Path) -> tuple[Path, ...]:
    match = SPLIT.fullmatch(file.name)
    if match is None:
        return (file,)
    stem, count = match[1], int(match[3])
    parts = [
        file.with_name(f"{stem}-{part:05d}-of-{count:05d}.gguf") for part in range(1, count + 1)
    ]
    missing = [part.name for part in parts if not foreign.present(part)]
    if missing or not parts:
        raise ArtifactError(
            f"{file.name} is one of {count} files; missing: {', '.join(missing[:4])}"
            f"{f' and {len(missing) - 4} more' if len(missing) > 4 else ''}"
        )
    return tuple(parts)
