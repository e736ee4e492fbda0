"""The devices that are known by name: the shipped tables, and a user's own file.

Data: data/*.toml, each figure with its source. Which runtimes run where: see `engines`.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from phiquant.devices.device import Device
from phiquant.devices.engines import DATA, engines
from phiquant.devices.reading import read_devices, read_engines, read_toml
from phiquant.devices.this_machine import this_machine
from phiquant.errors import RequestError

TABLES = ("iot", "mobile", "ai-pc", "mac", "nvidia")
THIS = "this"


@cache
def _documents() -> Mapping[str, Mapping[str, Any]]:
    return {name: read_toml(DATA / f"{name}.toml") for name in TABLES}


@cache
def devices() -> Mapping[str, Device]:
    """The shipped devices, by name, class by class."""
    known: dict[str, Device] = {}
    for name, document in _documents().items():
        known |= read_devices(document, f"{name}.toml", engines(), {})
    return known


def read_user_devices(path: Path) -> Mapping[str, Device]:
    """The devices of a user's file; it may bring engines of its own. Raises InputError."""
    document = read_toml(path)
    own = document.pop("engine", {})
    known = {name: table for shipped in _documents().values() for name, table in shipped.items()}
    available = {**engines(), **read_engines(own, str(path))}
    return read_devices(document, str(path), available, known)


def find_device(word: str) -> Device:
    """The device called `word`, of the machine at hand (`this`), or of a user's file.

    A file is named as PATH.toml where it holds one device, PATH.toml:NAME where it holds more.
    Raises RequestError or InputError.
    """
    if word == THIS:
        return this_machine()
    path, _, name = word.partition(".toml:")
    if name or word.endswith(".toml"):
        return _of_file(Path(path + ".toml" if name else word), name)
    known = devices()
    if word not in known:
        near = get_close_matches(word.lower(), known, 3, 0.5)
        raise RequestError(
            f"there is no device {word!r}"
            + (f"; did you mean {', '.join(near)}?" if near else "")
            + "; `phiquant devices` lists them, `this` is the machine at hand, and a file "
            "FILE.toml describes one of your own"
        )
    return known[word]


def _of_file(path: Path, name: str) -> Device:
    described = read_user_devices(path)
    if name in described:
        return described[name]
    if not name and len(described) == 1:
        return next(iter(described.values()))
    raise RequestError(
        f"{path} describes {', '.join(described) or 'no device'}; say which: {path}:NAME"
    )
