"""Constants of an IR, read from its text: names, types, shapes and places, without OpenVINO.

A weight's constant has the weight's name, but for what converters add: the prefix "self.", the
suffix "_compressed", "_openvino_orig_weight" for 16-bit checkpoints. Where a converter folded a
constant, and with it the name, what the constant feeds still tells: the layers of a module are
called "__module.NAME/…".
Source of the format: openvino's IR version 11, and the models that optimum-cli makes.

The text is taken apart element by element, and no tree is made of it: that of a text of some
megabytes could take all memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Protocol, TypeVar
from xml.parsers import expat

from phiquant.errors import ArtifactError
from phiquant.host import foreign

MODEL = "openvino_model.xml"
MODULE = "__module."
MOST_ELEMENTS = 1 << 20
"""Phi-4-mini's model has 100,000."""
DEEPEST = 32
"""Elements within one another."""
MOST_DIMENSIONS = 8
"""Of a constant."""
LARGEST = 1 << 62
"""Bytes and extents are below this."""


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of the graph; `offset` and `nbytes` are in the .bin file."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Constants:
    """All constants of a graph, by name and by the modules that they feed."""

    by_name: Mapping[str, Constant]
    by_module: Mapping[str, tuple[Constant, ...]]

    def weight(self, name: str, count: int) -> Constant | None:
        """The constant for the checkpoint's weight `name` with `count` elements."""
        own = self.by_name.get(name) or self.by_name.get(f"{name}_compressed")
        if own is not None:
            return own
        fed = self.by_module.get(name.removesuffix(".weight"), ())
        return next((constant for constant in fed if prod(constant.shape) == count), None)


def read_constants(path: Path) -> Constants:
    """Every constant with bytes in the .bin beside the IR at `path`; ArtifactError if unsound."""
    binary = path.with_suffix(".bin")
    if not foreign.present(binary):
        raise ArtifactError(f"{binary.name} is missing beside {path.name}; download it again")
    graph = _parsed(path, _Graph())
    size = foreign.check_file(binary, foreign.STORED, path.parent)
    for constant in graph.constants.values():
        if constant.offset + constant.nbytes > size:
            raise ArtifactError(
                f"{constant.name} ends beyond {binary.name}, which has {size} bytes; the file was "
                "cut short: download or make it again"
            )
    by_module: dict[str, list[Constant]] = {}
    for number, constant in graph.constants.items():
        for module in graph.modules(number):
            by_module.setdefault(module, []).append(constant)
    named = {item.name: item for item in graph.constants.values()}
    return Constants(named, {name: tuple(fed) for name, fed in by_module.items()})


def read_rt_info(path: Path, section: str) -> dict[str, str]:
    """The values in a section of the `rt_info` of the IR at `path`; ArtifactError if unsound."""
    return _parsed(path, _RuntimeInformation(section)).values


class _Reader(Protocol):
    """Takes a text's elements. Raises KeyError or ValueError for what is not as it should be."""

    def begin(self, above: list[str], name: str, attributes: Mapping[str, str]) -> None:
        """An element begins; `above` are the names of those around it, outermost first."""

    def end(self) -> None:
        """The text is at its end."""


Reader = TypeVar("Reader", bound=_Reader)


@dataclass(slots=True)
class _RuntimeInformation:
    """The values of one section of the model's own `rt_info`."""

    section: str
    values: dict[str, str] = field(default_factory=dict)

    def begin(self, above: list[str], name: str, attributes: Mapping[str, str]) -> None:
        if above[1:] == ["rt_info", self.section]:
            self.values[name] = attributes.get("value", "")

    def end(self) -> None:
        """Nothing need be there."""


@dataclass(slots=True)
class _Graph:
    """Layers by number, the constants among them, and which layers each feeds."""

    layers: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Number → type and name."""
    constants: dict[str, Constant] = field(default_factory=dict)
    edges: dict[str, list[str]] = field(default_factory=dict)
    _number: str = ""

    def begin(self, above: list[str], name: str, attributes: Mapping[str, str]) -> None:
        # The graphs within layers, the bodies of loops, have numbers of their own.
        if name == "layer" and above[1:] == ["layers"]:
            self._number = attributes["id"]
            if self._number in self.layers:
                raise ValueError(f"two layers have the number {self._number:.40}")
            self.layers[self._number] = (attributes["type"], attributes["name"])
        elif name == "data" and above[1:] == ["layers", "layer"]:
            kind, called = self.layers[self._number]
            if kind == "Const":
                self.constants[self._number] = _constant(called, attributes)
        elif name == "edge" and above[1:] == ["edges"]:
            self.edges.setdefault(attributes["from-layer"], []).append(attributes["to-layer"])

    def end(self) -> None:
        """ValueError for constants without a place and for edges that lead nowhere."""
        for number, (kind, name) in self.layers.items():
            if kind == "Const" and number not in self.constants:
                raise ValueError(f"the constant {name:.60} has no data")
        for fed in self.edges.values():
            for number in fed:
                if number not in self.layers:
                    raise ValueError(f"an edge leads to the layer {number:.40}, which is not there")

    def modules(self, number: str) -> Iterator[str]:
        """The modules that a layer feeds, at once or through conversions."""
        seen, waiting = {number}, [number]
        while waiting:
            for fed in self.edges.get(waiting.pop(), ()):
                kind, name = self.layers[fed]
                if kind != "Convert" and name.startswith(MODULE):
                    yield name.removeprefix(MODULE).partition("/")[0]
                elif kind == "Convert" and fed not in seen:
                    seen.add(fed)
                    waiting.append(fed)


def _parsed(path: Path, reader: Reader) -> Reader:
    """`reader`, once it has seen the whole text of the IR at `path`. Raises ArtifactError."""
    data = foreign.read_bytes(path, foreign.OPENVINO_GRAPH, path.parent)
    above: list[str] = []
    left = MOST_ELEMENTS

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal left
        left -= 1
        if left < 0 or len(above) >= DEEPEST:
            raise ValueError(f"more than {MOST_ELEMENTS} elements, or {DEEPEST} within one another")
        reader.begin(above, name, attributes)
        above.append(name)

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda name: above.pop()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        reader.end()
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise ArtifactError(f"{path.name} is no OpenVINO model ({error})") from error
    return reader


def _refuse_doctype(*_: object) -> None:
    raise ValueError("it declares a document type, and with it entities")


def _constant(name: str, data: Mapping[str, str]) -> Constant:
    text = data["shape"]
    extents = text.split(",", MOST_DIMENSIONS) if text.strip() else []
    if len(extents) > MOST_DIMENSIONS:
        raise ValueError(f"the constant {name:.60} has more than {MOST_DIMENSIONS} dimensions")
    return Constant(
        _plain(name),
        data["element_type"],
        tuple(map(_count, extents)),
        _count(data["offset"]),
        _count(data["size"]),
    )


def _count(text: str) -> int:
    number = int(text) if len(text) <= 20 else -1
    if not 0 <= number < LARGEST:
        raise ValueError(f"{text:.40} is no count of anything")
    return number


def _plain(name: str) -> str:
    """The name of a constant as the checkpoint has it."""
    return name.removeprefix("self.").replace("._openvino_orig_weight", ".weight")
