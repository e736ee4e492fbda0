"""What of an artifact's settings may reach a runtime: only what is known to do no harm.

Files of settings can name libraries to load, code to run, files to read and to write. Which keys do
is the runtimes' affair and changes with them. So each runtime has a list of those that it may be
given, with the values that they may have; whatever else a file holds is refused by name.

A schema is a mapping of keys to what their values may be: a `Kind`, or a schema for an object.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Any

from phiquant.errors import ArtifactError

LARGEST = 1 << 26
"""Bytes of a file of settings; added tokens are listed in some."""

Kind = Callable[[object], bool]
"""Whether a value is of a kind that does no harm."""
Schema = Mapping[str, "Kind | Schema"]


def number(value: object) -> bool:
    """A number; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def flag(value: object) -> bool:
    """True or false."""
    return isinstance(value, bool)


def text(value: object) -> bool:
    """Any text, for keys whose text is never taken for a path or a name of something to load."""
    return isinstance(value, str)


def plain(value: object) -> bool:
    """Null, or any of the former."""
    return value is None or isinstance(value, bool | int | float | str)


def anything(value: object) -> bool:
    """Whatever it is, for what is only ever looked up."""
    return True


def numbers(value: object) -> bool:
    """A number, or a list of them."""
    return number(value) or (isinstance(value, list) and all(map(number, value)))


def texts(value: object) -> bool:
    """A list of texts."""
    return isinstance(value, list) and all(map(text, value))


def among(*words: object) -> Kind:
    """One of a few words."""
    return lambda value: isinstance(value, str | bool | NoneType) and value in words


def matching(pattern: str) -> Kind:
    """A text of a form."""
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, read so strictly that no reader can take it for another.

    Raises ArtifactError for anything else: keys that stand twice, comments, text after the end.
    """
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise ArtifactError(f"expected settings of at most {LARGEST >> 20} MiB in {path}")
    try:
        document = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} holds no settings that can be read ({error})") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"expected a JSON object in {path}")
    return document


def admit(document: object, schema: Schema, file: str, within: str = "") -> None:
    """Raise ArtifactError, naming it, for anything in `document` that `schema` does not have."""
    if not isinstance(document, dict):
        raise _refused(file, within.rstrip("."), "should be an object")
    for key, value in document.items():
        allowed = schema.get(key)
        if allowed is None:
            raise _refused(file, within + key, "is none of the settings that are known to be safe")
        if isinstance(allowed, Mapping):
            admit(value, allowed, file, f"{within}{key}.")
        elif not allowed(value):
            raise _refused(file, within + key, f"has the value {value!r:.60}, which is not safe")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"{twice!r:.60} stands twice in one object")
    return members


def _refused(file: str, key: str, why: str) -> ArtifactError:
    return ArtifactError(
        f"{key} in {file} {why}, so the runtime is not given the artifact; take it out of the file "
        "if the artifact works without it"
    )
