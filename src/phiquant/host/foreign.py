"""Files by other hands: opened only if they are what they should be.

A model's directory, an artifact and a table may come from anyone. So every file in them is opened
here, and only if it is

- a regular file: reading a named pipe would wait for ever, and a device may never end;
- in the model's directory: a link from there to elsewhere would carry a file of the reader's own
  into an artifact. The one layout in which links are followed is that of the Hugging Face hub's
  cache, where `snapshots/<commit>/<file>` leads to `blobs/<hash>`;
- of a size that its kind may have, before a byte of it is read: a sparse file of terabytes takes no
  room on a disk.

A file that a person names on the command line may be a link to anywhere.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from phiquant.errors import ArtifactError, CheckpointError, ConfigError, InputError, TokenizerError
from phiquant.host.strict_json import parse_json

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: how many bytes it may have (None: any number, because it is mapped and only
    its header is read), and the error where it will not do.
    """

    most: int | None
    error: type[InputError]


CONFIG = FileKind(4 * MIB, ConfigError)
"""config.json; published ones have 3 kB, those of mixed MLX artifacts 100."""
TOKENIZER = FileKind(24 * MIB, TokenizerError)
"""tokenizer.json; Phi-4-mini's has 15 MB."""
TOKENIZER_SETTINGS = FileKind(4 * MIB, TokenizerError)
"""The JSON files around it."""
TOKENIZER_MODEL = FileKind(8 * MIB, TokenizerError)
"""tokenizer.model; Phi-3's has half a megabyte."""
VOCABULARY = FileKind(16 * MIB, TokenizerError)
"""vocab.json and merges.txt, which are copied and not read."""
TEMPLATE = FileKind(MIB // 4, TokenizerError)
"""A chat template; the longest known have 30 kB."""
WEIGHT_INDEX = FileKind(16 * MIB, CheckpointError)
WEIGHTS = FileKind(None, CheckpointError)
STORED = FileKind(None, ArtifactError)
"""An artifact's tensors: GGUF, .bin, external data of ONNX."""
RECORD = FileKind(16 * MIB, ArtifactError)
"""phiquant.json."""
RUNTIME_SETTINGS = FileKind(MIB, ArtifactError)
"""genai_config.json."""
ONNX_GRAPH = FileKind(128 * MIB, ArtifactError)
"""A graph without its weights. Rotary tables of 131,072 positions may be in it: 67 MB."""
OPENVINO_GRAPH = FileKind(32 * MIB, ArtifactError)
"""openvino_model.xml; a Phi's has 3 MB."""
TEXT = FileKind(32 * MIB, InputError)
"""A text to calibrate or to measure on: several million tokens."""
TABLE = FileKind(MIB // 4, InputError)
"""A TOML file of devices."""
IMATRIX = FileKind(256 * MIB, InputError)
"""llama.cpp's importance matrices; a Phi's has 3 MB."""
CARD = FileKind(None, InputError)
"""README.md, of which the beginning is read."""
WHEEL = FileKind(128 * MIB, InputError)

FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"):
    FLAGS |= getattr(os, _name, 0)
"""Non-blocking, because to open a pipe that no one writes to would wait; what a system has."""
MOST_ENTRIES = 10_000
"""Files in an artifact's directory."""
HUB_FOLDER = re.compile(r"models--.+")


def present(path: Path) -> bool:
    """Whether anything is called so, be it a link that leads nowhere or a pipe."""
    return os.path.lexists(path)


def is_plain_name(word: str) -> bool:
    """Whether `word` names a file in a directory, and leads nowhere else."""
    return Path(word).name == word and word not in ("", ".", "..") and "\0" not in word


def is_within(path: Path, home: Path) -> bool:
    """Whether `path`, links followed, lies in `home`, or is one of the hub cache's blobs for it."""
    place, inside = Path(os.path.realpath(path)), Path(os.path.realpath(home))
    return place.is_relative_to(inside) or any(
        place.is_relative_to(blobs) for blobs in _blobs(inside)
    )


@contextmanager
def opened(path: Path, kind: FileKind, home: Path | None = None) -> Iterator[BinaryIO]:
    """The file at `path`, for reading. Raises the kind's error if it is not to be read.

    `home` is the model's directory, which a link must not lead out of; None for a file that a
    person named.
    """
    if "\0" in str(path):
        raise kind.error(f"there can be no file {str(path)!r}: a null character is in its name")
    with _reported(path, kind):
        if home is not None and not is_within(path, home):
            raise kind.error(_leads_out(path))
        handle = os.open(path, FLAGS)
    try:
        _check_opened(path, os.fstat(handle), kind)
    except BaseException:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file, _reported(path, kind):
        yield file


def _check_opened(path: Path, status: os.stat_result, kind: FileKind) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise kind.error(f"expected a file at {path}, found {_what(status.st_mode)}")
    if kind.most is not None and status.st_size > kind.most:
        raise kind.error(_too_long(path, status.st_size, kind.most))


def check_file(path: Path, kind: FileKind, home: Path | None = None) -> int:
    """The size in bytes of a file that is to be mapped or given to a library. Raises as `opened`
    does.
    """
    with opened(path, kind, home) as file:
        return os.fstat(file.fileno()).st_size


def check_directory(home: Path, error: type[InputError]) -> None:
    """Raise `error` for a directory in which anything but files and directories lies, or a link
    that leads out of it: for a runtime that is to open whatever it likes there.
    """
    for count, path in enumerate(entries(home), 1):
        if count > MOST_ENTRIES:
            raise error(f"{home} holds more than {MOST_ENTRIES} files; it is no artifact")
        if path.is_symlink() and not is_within(path, home):
            raise error(_leads_out(path))
        if not (path.is_file() or path.is_dir()):
            raise error(f"expected files alone in {home}, found {_found_at(path)} at {path}")


def entries(home: Path) -> Iterator[Path]:
    """Everything in a directory and its folders; links are not followed."""
    for folder, folders, files in os.walk(home):
        yield from (Path(folder, name) for name in (*folders, *files))


def read_bytes(path: Path, kind: FileKind, home: Path | None = None) -> bytes:
    """The file's content. Raises as `opened` does."""
    assert kind.most is not None
    with opened(path, kind, home) as file:
        data = file.read(kind.most + 1)
    if len(data) > kind.most:  # some files of the system state a size of 0
        raise kind.error(_too_long(path, len(data), kind.most))
    return data


def read_text(path: Path, kind: FileKind, home: Path | None = None, encoding: str = "utf-8") -> str:
    """The file's content as text. Raises as `opened` does, and for bytes that are no UTF-8."""
    return decoded(read_bytes(path, kind, home), path, kind, encoding)


def decoded(data: bytes, path: Path, kind: FileKind, encoding: str = "utf-8") -> str:
    """The text of `data`, read from `path`. Raises the kind's error for bytes that are no UTF-8."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise kind.error(
            f"expected UTF-8 text in {path}, found other bytes at {error.start}; convert it with "
            "iconv first, or download it again"
        ) from None


def read_object(
    path: Path, kind: FileKind, home: Path | None = None, remedy: str = "download it again"
) -> dict[str, Any]:
    """The JSON object that the file holds. Raises as `read_text` does, and for anything else;
    `remedy` says what to do then.
    """
    text = read_text(path, kind, home)
    try:
        value = parse_json(text)
    except ValueError as error:
        raise kind.error(f"{path} is not valid JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise kind.error(
            f"{path} should hold a JSON object, found a {type(value).__name__}; {remedy}"
        )
    return value


@contextmanager
def _reported(path: Path, kind: FileKind) -> Iterator[None]:
    """Turn what the system says about a file into the kind's error."""
    try:
        yield
    except OSError as error:
        raise kind.error(f"cannot read {path}: {error.strerror or error}") from error


def _leads_out(path: Path) -> str:
    return (
        f"{path} is a link to {os.path.realpath(path)}, outside of the model's directory, and is "
        "not followed; put the file itself there"
    )


def _found_at(path: Path) -> str:
    try:
        return _what(path.stat().st_mode)
    except OSError:
        return "a link to nothing"


def _blobs(home: Path) -> Iterator[Path]:
    """Where the files of a snapshot in the hub's cache lie: `home` is the snapshot, or in it."""
    for folder in (home, *home.parents):
        model = folder.parent.parent
        if folder.parent.name == "snapshots" and HUB_FOLDER.fullmatch(model.name):
            yield model / "blobs"


def _what(mode: int) -> str:
    for is_one, name in (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if is_one(mode):
            return name
    return "a device"


def _too_long(path: Path, size: int, most: int) -> str:
    return f"{path} has {size:,} bytes, and a file of its kind at most {most:,}; it is no such file"
