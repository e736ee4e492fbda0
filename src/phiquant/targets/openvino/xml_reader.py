"""Constants of an IR, read from its text: names, types, shapes and places, without OpenVINO.

A weight's constant has the weight's name, but for what converters add: the prefix "self.", the
suffix "_compressed", "_openvino_orig_weight" for 16-bit checkpoints. Where a converter folded a
constant, and with it the name, what the constant feeds still tells: the layers of a module are
called "__module.NAME/…".
Source of the format: openvino's IR version 11, and the models that optimum-cli makes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from xml.etree import ElementTree

from phiquant.errors import ArtifactError

MODEL = "openvino_model.xml"
MODULE = "__module."


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
        found = self.by_name.get(name) or self.by_name.get(f"{name}_compressed")
        if found is not None:
            return found
        fed = self.by_module.get(name.removesuffix(".weight"), ())
        return next((constant for constant in fed if prod(constant.shape) == count), None)


def read_constants(path: Path) -> Constants:
    """Every constant with bytes in the .bin beside the IR at `path`; ArtifactError if unsound."""
    binary = path.with_suffix(".bin")
    if not binary.is_file():
        raise ArtifactError(f"{binary.name} is missing beside {path.name}; download it again")
    try:
        constants, layers, edges = _read(path)
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path.name} is no OpenVINO model ({error})") from error
    size = binary.stat().st_size
    for constant in constants.values():
        if constant.offset < 0 or constant.offset + constant.nbytes > size:
            raise ArtifactError(
                f"{constant.name} ends beyond {binary.name}, which has {size} bytes; the file was "
                "cut short: download or make it again"
            )
    by_module: dict[str, tuple[Constant, ...]] = {}
    for number, constant in constants.items():
        for module in _modules(number, layers, edges):
            by_module[module] = (*by_module.get(module, ()), constant)
    return Constants({item.name: item for item in constants.values()}, by_module)


def read_rt_info(path: Path, section: str) -> dict[str, str]:
    """The values in a section of the `rt_info` of the IR at `path`; ArtifactError if unsound."""
    try:
        for _, element in ElementTree.iterparse(path):
            if element.tag in ("layer", "edge"):
                element.clear()
    except (OSError, ElementTree.ParseError) as error:
        raise ArtifactError(f"{path.name} is no OpenVINO model ({error})") from error
    return {entry.tag: entry.get("value", "") for entry in element.iterfind(f"rt_info/{section}/*")}


Layers = Mapping[str, tuple[str, str]]
"""Number of a layer → its type and name."""
Edges = Mapping[str, list[str]]
"""Number of a layer → the layers that it feeds."""


def _read(path: Path) -> tuple[dict[str, Constant], Layers, Edges]:
    constants: dict[str, Constant] = {}
    layers: dict[str, tuple[str, str]] = {}
    edges: dict[str, list[str]] = {}
    for _, element in ElementTree.iterparse(path):
        if element.tag == "layer":
            number = element.attrib["id"]
            layers[number] = (element.attrib["type"], element.attrib["name"])
            if layers[number][0] == "Const":
                constants[number] = _constant(element)
            element.clear()
        elif element.tag == "edge":
            edges.setdefault(element.attrib["from-layer"], []).append(element.attrib["to-layer"])
    return constants, layers, edges


def _constant(layer: ElementTree.Element) -> Constant:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"the constant {layer.get('name')} has no data")
    shape = data.attrib["shape"]
    return Constant(
        _plain(layer.attrib["name"]),
        data.attrib["element_type"],
        tuple(int(extent) for extent in shape.split(",")) if shape.strip() else (),
        int(data.attrib["offset"]),
        int(data.attrib["size"]),
    )


def _plain(name: str) -> str:
    """The name of a constant as the checkpoint has it."""
    return name.removeprefix("self.").replace("._openvino_orig_weight", ".weight")


def _modules(number: str, layers: Layers, edges: Edges) -> Iterator[str]:
    """The modules that a layer feeds, at once or through a conversion."""
    for fed in edges.get(number, ()):
        type, name = layers[fed]
        if type == "Convert":
            yield from _modules(fed, layers, edges)
        elif name.startswith(MODULE):
            yield name.removeprefix(MODULE).partition("/")[0]
