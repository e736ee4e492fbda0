"""openvino_model.xml and the layout of openvino_model.bin, from a graph whose weights are open.

OpenVINO serializes the graph with its small constants alone. In the text every parameter that
stands for stored weights becomes a constant: the same layer with another type and, in `data`, the
place of its bytes. The .bin is the small constants, then the weights at multiples of 64 bytes.

Serializing the model with real constants would want all of them in memory, and would hash every
one for duplicates; a sparse file behind them would still be read as a whole.
Source of the format: openvino's IR version 11, `xml_serialize_util.cpp`.
"""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phiquant.targets.openvino.graph import Graph
from phiquant.targets.openvino.operators import Node, openvino
from phiquant.targets.openvino.parts import StoredConstant

OWN_NAME = re.compile(r"\b([A-Z][A-Za-z0-9]*)_[0-9]+\b")
NAMES = re.compile(r' (?:name|names|output_names)="[^"]*"')
TAG = re.compile(r"<(?:layer|port) [^<>]*>")
PARAMETER = re.compile(
    r'(?P<layer><layer id="\d+" name="(?P<name>[^"]*)") type="Parameter" version="opset1">'
    r"(?P<space>\s*)<data [^<>]*/>"
)
"""As OpenVINO writes it. The text is megabytes: taking it apart as XML costs a second more."""
ALIGNMENT = 64
"""Bytes: a cache line, and what the CPU's kernels like best."""

PROBE = 1 << 20
"""Bytes that are written once more to a file where writing failed, to hear the reason."""


@dataclass(frozen=True, slots=True)
class IrLayout:
    """The model's text, the start of its .bin, and where each stored array goes."""

    xml: bytes
    head: bytes
    parts: Mapping[str, tuple[StoredConstant, int]]
    """Name of the constant → what it is, and its offset."""
    nbytes: int


def arrange(graph: Graph, directory: Path) -> IrLayout:
    """Serialize `graph` and place its weights; files in `directory` are made and removed."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        xml, binary = Path(scratch, "model.xml"), Path(scratch, "model.bin")
        _save(graph.model, xml, binary)
        head = binary.read_bytes()
        text = xml.read_text(encoding="utf-8")
    places: dict[str, tuple[StoredConstant, int]] = {}
    end = len(head)
    for part in graph.parts:
        end += -end % ALIGNMENT
        places[part.name] = (part, end)
        end += part.nbytes
    text = _with_constants(_with_numbered_names(text), places)
    return IrLayout(text.encode(), head, places, end)


def serialize(model: Node, path: Path) -> None:
    """Write `model` whole to `path`.xml and .bin."""
    xml = path.with_suffix(".xml")
    _save(model, xml, path.with_suffix(".bin"))
    xml.write_text(_with_numbered_names(xml.read_text(encoding="utf-8")), encoding="utf-8")


def _save(model: Node, xml: Path, binary: Path) -> None:
    """Let OpenVINO write both files. Raises OSError where the system refuses."""
    try:
        openvino().serialize(model, xml, binary)
    except RuntimeError:  # "iostream error", whatever the reason: the system is asked for it
        for path in (xml, binary):
            _write_more(path)
        raise


def _write_more(path: Path) -> None:
    try:
        with path.open("ab", buffering=0) as file:
            file.write(bytes(PROBE))
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _with_numbered_names(text: str) -> str:
    """Number the names that OpenVINO gave by itself ("Constant_149") in the order of the text.

    It counts over all that the process has made; the same request is to give the same bytes.
    """
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"{match[1]}_{numbers.setdefault(match[0], len(numbers))}"

    def with_numbers(names: re.Match[str]) -> str:
        return OWN_NAME.sub(numbered, names[0])

    return TAG.sub(lambda tag: NAMES.sub(with_numbers, tag[0]), text)


def _with_constants(text: str, places: Mapping[str, tuple[StoredConstant, int]]) -> str:
    """Make a constant, whose bytes are in the .bin, of each parameter that `places` names."""

    def constant(match: re.Match[str]) -> str:
        if match["name"] not in places:
            return match[0]
        part, offset = places[match["name"]]
        shape = ", ".join(map(str, part.shape))
        return (
            f'{match["layer"]} type="Const" version="opset1">{match["space"]}<data '
            f'element_type="{part.element_type}" shape="{shape}" offset="{offset}" '
            f'size="{part.nbytes}" />'
        )

    text, count = PARAMETER.subn(constant, text)
    assert count >= len(places) and text.count(' offset="') >= len(places)
    return text
