"""`OpenVinoArtifact`: an IR opened without OpenVINO, decoded to what the plugins compute with.

Ours or optimum-cli's: what counts is what is stored. A weight is the constant of its name; with
"NAME/scale" (and "NAME/zero_point") beside it, it is compressed.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError
from phiquant.host import foreign
from phiquant.host.opened_file import OpenedFile
from phiquant.host.shown import shown
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import read_architecture, read_config
from phiquant.phi.network.parts import Network, Weight
from phiquant.phi.weights import rows_from
from phiquant.quantization.grid import Floats, Grid
from phiquant.quantization.nibbles import unpack_run
from phiquant.targets.openvino.formats import (
    COMPRESSED,
    FLOATS,
    READABLE_FLOATS,
    named_grid,
)
from phiquant.targets.openvino.parts import BITS, nbytes_of
from phiquant.targets.openvino.xml_reader import MODEL, Constant, Constants, read_constants
from phiquant.targets.target import StoredEntry

DTYPES: Mapping[str, Any] = {
    "i4": np.uint8,
    "u4": np.uint8,
    "u8": np.uint8,
    "i8": np.int8,
    "f16": np.float16,
    "bf16": np.uint16,
    "f32": np.float32,
}
"""How numpy holds an element type; two 4-bit values a byte."""


def recognises(path: Path) -> bool:
    """Whether `path` is a directory with an OpenVINO language model, or its .xml file."""
    present = foreign.present(_directory(path) / MODEL)
    return present and (path.is_dir() or path.name == MODEL)


def _directory(path: Path) -> Path:
    return path if path.is_dir() else path.parent


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One stored tensor: its constants by part name, and the grid they are on."""

    name: str
    shape: tuple[int, ...]
    grid: str
    parts: Mapping[str, Constant]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


class OpenVinoArtifact:
    """An opened directory. The text is read on opening, data when asked for.

    Raises ArtifactError for files that are unsound, or not the tensors that config.json promises;
    ConfigError where config.json itself is no Phi-3's.
    """

    def __init__(self, path: Path) -> None:
        self.path = _directory(path)
        if not foreign.present(self.path / MODEL):
            raise ArtifactError(f"expected {MODEL} in {path}, found none")
        self._architecture = read_architecture(read_config(self.path))
        constants = read_constants(self.path / MODEL)
        self._weights = {weight.name: weight for weight in self._architecture.weights()}
        self._matrices = {
            name: _matrices(weight, self._architecture.network, constants)
            for name, weight in self._weights.items()
        }
        self._binary = OpenedFile((self.path / MODEL).with_suffix(".bin"), ArtifactError)

    @property
    def type(self) -> str:
        """The type that most weights of the layers have ("int4-sym-g64", "fp16")."""
        sizes: Counter[str] = Counter()
        for name, matrices in self._matrices.items():
            if self._weights[name].layer is not None:
                for matrix in matrices:
                    sizes[matrix.grid] += math.prod(matrix.shape)
        grid = sizes.most_common(1)[0][0]
        for name, kind in COMPRESSED.items():
            if kind.grid.name == grid:
                return name
        return next((name for name, stored in FLOATS.items() if stored == grid), grid)

    def entries(self) -> tuple[StoredEntry, ...]:
        """Every weight of the network, or its parts, as it is stored, in network order."""
        return tuple(
            StoredEntry(matrix.name, matrix.shape, matrix.grid, matrix.nbytes)
            for matrices in self._matrices.values()
            for matrix in matrices
        )

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows `first` to `last` of the weight `name`, the floats that the runtime sees."""
        if name not in self._matrices:
            raise ArtifactError(f"{self.path} has no weight {name}")
        shape = self._weights[name].shape
        if len(shape) == 1:
            (vector,) = self._matrices[name]
            return self._decoded(vector, 0, 1)[0, first:last]
        matrices = self._matrices[name]
        counts = [matrix.shape[0] for matrix in matrices]
        pieces = [
            self._decoded(matrices[number], low, high)
            for number, low, high in rows_from(counts, first, last)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, shape[1]), np.float32)

    def _decoded(self, matrix: _Matrix, first: int, last: int) -> Floats:
        grid: Grid = READABLE_FLOATS.get(matrix.grid) or named_grid(matrix.grid)  # type: ignore[assignment]
        parts = {part: self._rows(matrix, part, first, last) for part in matrix.parts}
        return grid.decode(parts, matrix.shape[-1])

    def _rows(self, matrix: _Matrix, part: str, first: int, last: int) -> npt.NDArray[np.generic]:
        constant = matrix.parts[part]
        rows = matrix.shape[0] if len(matrix.shape) == 2 else 1
        if constant.element_type == "u4" and part == "zero_point":  # a row may end within a byte
            data = self._binary.read(constant.offset, constant.nbytes)
            return unpack_run(data, math.prod(constant.shape)).reshape(rows, -1)[first:last]
        row_nbytes, rest = divmod(constant.nbytes, rows)
        if rest:
            raise ArtifactError(f"{matrix.name}: {constant.nbytes} bytes are not {rows} rows")
        data = self._binary.read(constant.offset + first * row_nbytes, (last - first) * row_nbytes)
        stored: npt.NDArray[np.generic] = data.view(DTYPES[constant.element_type])
        return stored.reshape(last - first, -1)

    @property
    def architecture(self) -> Architecture:
        """The dimensions as config.json states them; the graph was made from the same."""
        return self._architecture


def open_artifact(path: Path) -> OpenVinoArtifact:
    """Open the OpenVINO artifact at `path`."""
    return OpenVinoArtifact(path)


def _matrices(weight: Weight, network: Network, constants: Constants) -> tuple[_Matrix, ...]:
    """The stored tensors of a weight: one, or one for each of its parts."""
    parts = network.linear[weight.name].parts if weight.name in network.linear else ()
    shapes = {part.name: (part.rows, *weight.shape[1:]) for part in parts}
    apart = any(constants.weight(name, math.prod(shape)) for name, shape in shapes.items())
    if apart and len(shapes) > 1:
        return tuple(_matrix(name, shape, constants) for name, shape in shapes.items())
    return (_matrix(weight.name, weight.shape, constants),)


def _matrix(name: str, shape: tuple[int, ...], constants: Constants) -> _Matrix:
    main = constants.weight(name, math.prod(shape))
    if main is None:
        raise ArtifactError(f"{name} is missing from {MODEL}")
    parts = {"weight": main}
    for part in ("scale", "zero_point"):
        if f"{name}/{part}" in constants.by_name:
            parts[part] = constants.by_name[f"{name}/{part}"]
    for part, constant in parts.items():
        if constant.element_type not in BITS or constant.nbytes != nbytes_of(
            constant.element_type, constant.shape
        ):
            raise ArtifactError(
                f"{name}: the {part} of {shown(constant.element_type)} and the shape "
                f"{list(constant.shape)} has {constant.nbytes} bytes"
            )
    grid = main.element_type
    if "scale" in parts and len(shape) == 2:
        grid = _integer_grid(name, shape, parts)
    elif grid not in READABLE_FLOATS:
        raise ArtifactError(f"{name} is stored as {grid} without a scale; expected floats")
    expected = math.prod(shape)
    if math.prod(main.shape) != expected:
        raise ArtifactError(f"{name} should hold {expected} weights, found shape {main.shape}")
    return _Matrix(name, shape, grid, parts)


def _integer_grid(name: str, shape: tuple[int, ...], parts: Mapping[str, Constant]) -> str:
    main, scale = parts["weight"], parts["scale"]
    rows, columns = shape
    scales = math.prod(scale.shape)
    if main.element_type not in ("i4", "u4", "i8", "u8") or scale.element_type != "f16":
        raise ArtifactError(
            f"{name} is stored as {main.element_type} with {scale.element_type} scales; "
            "expected 4 or 8 bits with f16 scales"
        )
    if not scales or scales % rows or columns * rows % scales:
        raise ArtifactError(f"{name} has {scales} scales for {rows} rows of {columns}")
    signed = main.element_type.startswith("i")
    if signed == ("zero_point" in parts):
        raise ArtifactError(
            f"{name} is stored as {main.element_type} {'with' if signed else 'without'} "
            "zero points, which is not covered"
        )
    zeros = parts.get("zero_point")
    if zeros is not None and (
        zeros.element_type != main.element_type or math.prod(zeros.shape) != scales
    ):
        raise ArtifactError(f"{name} has zero points that do not go with its {scales} scales")
    group = rows * columns // scales
    return f"{main.element_type} {'channel' if group == columns else f'g{group}'}"
