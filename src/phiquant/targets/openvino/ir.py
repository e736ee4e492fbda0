"""openvino_model.xml and the layout of openvino_model.bin, from a graph whose weights are open.

OpenVINO serializes the graph with its small constants alone. In the text every parameter that
stands for stored weights becomes a constant: the same layer with another type and, in `data`, the
place of its bytes. The .bin is the small constants, then the weights at multiples of 64 bytes.

Serializing the model with real constants would want all of them in memory, and would hash every
one for duplicates; a sparse file behind them would still be read as a whole.
Source of the format: openvino's IR version 11, `xml_serialize_util.cpp`.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from phiquant.targets.openvino.graph import Graph
from phiquant.targets.openvino.operators import Node, openvino
from phiquant.targets.openvino.parts import StoredPart

OWN_NAME = re.compile(r"\b([A-Z][A-Za-z0-9]*)_[0-9]+\b")
ALIGNMENT = 64
"""Bytes: a cache line, and what the CPU's kernels like best."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The model's text, the start of its .bin, and where each stored array goes."""

    xml: bytes
    head: bytes
    parts: Mapping[str, tuple[StoredPart, int]]
    """Name of the constant → what it is, and its offset."""
    nbytes: int


def arrange(graph: Graph) -> Layout:
    """Serialize `graph` and place its weights."""
    with tempfile.TemporaryDirectory() as scratch:
        xml, binary = Path(scratch, "model.xml"), Path(scratch, "model.bin")
        openvino().serialize(graph.model, xml, binary)
        head = binary.read_bytes()
        root = ElementTree.fromstring(xml.read_bytes())
    places: dict[str, tuple[StoredPart, int]] = {}
    end = len(head)
    for part in graph.parts:
        end += -end % ALIGNMENT
        places[part.name] = (part, end)
        end += part.nbytes
    _number_names(root)
    for layer in root.iter("layer"):
        place = places.get(layer.get("name", ""))
        if place is not None:
            _make_constant(layer, *place)
    text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Layout(text, head, places, end)


def serialize(model: Node, path: Path) -> None:
    """Write `model` whole to `path`.xml and .bin."""
    xml = path.with_suffix(".xml")
    openvino().serialize(model, xml, path.with_suffix(".bin"))
    root = ElementTree.fromstring(xml.read_bytes())
    _number_names(root)
    xml.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _number_names(root: ElementTree.Element) -> None:
    """Number the names that OpenVINO gave by itself ("Constant_149") in the order of the text.

    It counts over all that the process has made; the same request is to give the same bytes.
    """
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        return f"{match[1]}_{numbers.setdefault(match[0], len(numbers))}"

    for element in root.iter():
        if element.tag in ("layer", "port"):
            for key in ("name", "names", "output_names"):
                if key in element.attrib:
                    element.set(key, OWN_NAME.sub(numbered, element.attrib[key]))


def _make_constant(layer: ElementTree.Element, part: StoredPart, offset: int) -> None:
    data = layer.find("data")
    assert layer.get("type") == "Parameter" and data is not None, part.name
    layer.set("type", "Const")
    data.attrib = {
        "element_type": part.element_type,
        "shape": ", ".join(map(str, part.shape)),
        "offset": str(offset),
        "size": str(part.nbytes),
    }
