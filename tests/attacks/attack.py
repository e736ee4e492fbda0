"""`Attack`: what is written, which command reads it, and what its refusal must name.

An attack is a row: a sound directory of the session's (`base`) is copied, `damage` changes the
copy, and the command has to end with one sentence on stderr that has all of `words` in it, and with
the exit code.
In a command MODEL stands for the copy, OUT for a place where nothing is yet, HERE for the directory
that both are in, and SOUND for the sound checkpoint.
"""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PLAN = ("plan", "MODEL", "-q")
INSPECT = ("inspect", "MODEL")
VERIFY = ("verify", "MODEL", "--against", "SOUND", "--windows", "1", "-q")
QUANTIZE = ("quantize", "MODEL", "-o", "OUT", "-q")

REFUSED, FAILED_VERIFICATION = 2, 3

make_pipe = getattr(os, "mkfifo", None)
"""Windows has no named pipes in directories."""


@dataclass(frozen=True)
class Attack:
    """One row."""

    name: str
    base: str
    damage: Callable[[Path], object]
    words: tuple[str, ...]
    command: tuple[str, ...] = PLAN
    code: int = REFUSED


# What a row writes


def content(name, data):
    """The file `name` with `data`, bytes or text or what makes some, in place of its own."""

    def write(directory):
        path = directory / name
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(data() if callable(data) else data))

    return write


def encoded(data):
    """Text or bytes as bytes."""
    return data.encode() if isinstance(data, str) else data


def edited(name, change):
    """The JSON file `name` after `change`, a function of the document that may return another."""

    def write(directory):
        path = directory / name
        document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        changed = change(document)
        path.write_text(json.dumps(document if changed is None else changed), encoding="utf-8")

    return write


def fields(name, **changes):
    """The JSON file `name` with other values for some fields."""
    return edited(name, lambda document: document | changes)


def without(name, *keys):
    """The JSON file `name` without some fields."""
    return edited(name, lambda document: {k: v for k, v in document.items() if k not in keys})


def bytes_of(name, change):
    """The file `name` after `change`, a function of its bytes."""

    def write(directory):
        path = directory / name
        path.write_bytes(change(path.read_bytes()))

    return write


def sparse(name, size=2 << 30):
    """A file of `size` bytes that takes no room on the disk; its own content stays in front."""

    def write(directory):
        with (directory / name).open("ab") as file:
            file.truncate(size)

    return write


def pipe(name):
    """A named pipe that no one writes to."""

    def write(directory):
        (directory / name).unlink(missing_ok=True)
        (directory / name).parent.mkdir(exist_ok=True)
        make_pipe(directory / name)

    return write


def folder(name):
    """A directory where a file should be."""

    def write(directory):
        (directory / name).unlink(missing_ok=True)
        (directory / name).mkdir()

    return write


def removed(name):
    """No file `name`."""
    return lambda directory: (directory / name).unlink()


def link_out(name):
    """The file itself outside of the directory, and a link to it in its place."""

    def write(directory):
        path = directory / name
        outside = directory.parent / f"outside-{path.name}"
        if path.exists():
            path.rename(outside)
        else:
            outside.write_text("{}")
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(outside)

    return write


def all_of(*damages):
    """Several damages, one after the other."""

    def write(directory):
        for damage in damages:
            damage(directory)

    return write


# Formats, written by hand


def safetensors(header, data=b""):
    """The bytes of a safetensors file with a header that may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def varint(number):
    """A number in a protocol buffer."""
    data = b""
    while number > 0x7F:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def proto(number, value):
    """A field of a protocol buffer: a number, bytes, or a text."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data
