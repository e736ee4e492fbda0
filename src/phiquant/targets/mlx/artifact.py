"""`MlxArtifact`: any MLX directory opened without MLX, decoded to what mlx_lm computes with.

Ours or mlx_lm.convert's, of one precision or mixed: what counts is what is stored. A matrix with
`scales` and `biases` beside it is affine; its group and bits follow from the shapes, once the
config (or, for a weight shape that fits several, the architecture) gives the row length.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError, CheckpointError, ConfigError
from phiquant.host import foreign
from phiquant.host.opened_file import OpenedFile
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import read_config
from phiquant.phi.listed import listed
from phiquant.phi.safetensors_file import (
    SafetensorsTensor,
    read_header,
    read_metadata,
    read_rows,
)
from phiquant.quantization.grid import Floats, Grid
from phiquant.targets.mlx.formats import AFFINE_GRIDS, FLOATS, GRIDS, Affine
from phiquant.targets.mlx.grids import BITS, GROUPS
from phiquant.targets.mlx.longrope import ServedLengths, read_served_lengths
from phiquant.targets.mlx.model_config import runtime_architecture
from phiquant.targets.target import StoredEntry

AFFINE_PARTS = ("weight", "scales", "biases")


def recognises(path: Path) -> bool:
    """Whether `path` is a directory with MLX weights: quantized ones, or marked as MLX's."""
    if not path.is_dir() or not foreign.present(path / "config.json"):
        return False
    try:
        config = read_config(path)
    except ConfigError:
        return False
    quantization = config.get("quantization")
    if isinstance(quantization, Mapping):
        return "group_size" in quantization
    first = next(iter(sorted(path.glob("model*.safetensors"))), None)
    try:
        return first is not None and read_metadata(first, path).get("format") == "mlx"
    except CheckpointError:
        return False


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One weight of the network: its stored arrays by part name, and the grid they are on."""

    shape: tuple[int, ...]
    grid: str
    parts: Mapping[str, SafetensorsTensor]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts.values())


class MlxArtifact:
    """An opened MLX directory. Headers are read on opening, data when asked for.

    Raises ArtifactError for files that are unsound, or not the tensors that config.json promises;
    ConfigError where config.json itself is no Phi-3's.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ArtifactError(
                f"expected an MLX artifact's directory, found no directory at {path}"
            )
        self.path = path
        self.config = read_config(path)
        self._architecture = runtime_architecture(self.config)
        self._matrices = _read_matrices(path, self._architecture, self.config)

    @property
    def type(self) -> str:
        """The type that most weights have ("4bit-g64", "bf16")."""
        sizes: Counter[str] = Counter()
        for matrix in self._matrices.values():
            sizes[matrix.grid] += math.prod(matrix.shape)
        grid = sizes.most_common(1)[0][0]
        kind = AFFINE_GRIDS.get(grid)
        if kind is not None:
            return kind.name
        return next(name for name, dtype in FLOATS.items() if dtype == grid)

    @property
    def served(self) -> ServedLengths:
        """The sequence lengths at which the artifact's rotary embedding is the model's."""
        return read_served_lengths(self.config, self._architecture)

    def entries(self) -> tuple[StoredEntry, ...]:
        """Every weight of the network as it is stored, in network order."""
        return tuple(
            StoredEntry(name, matrix.shape, matrix.grid, matrix.nbytes)
            for name, matrix in self._matrices.items()
        )

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows `first` to `last` of the weight `name`, the floats that the runtime sees.

        A vector of norm gains counts as rows of one weight. ArtifactError if there is none such.
        """
        if name not in self._matrices:
            raise ArtifactError(f"{self.path} has no weight {name}")
        matrix = self._matrices[name]
        grid: Grid = GRIDS[matrix.grid]
        bands = {
            part: read_rows(OpenedFile(tensor.path, ArtifactError), tensor, first, last)
            for part, tensor in matrix.parts.items()
        }
        if len(matrix.shape) == 1:
            whole = {part: band[None] for part, band in bands.items()}
            decoded: Floats = grid.decode(whole, bands["weight"].shape[0])[0]
            return decoded
        return grid.decode(bands, matrix.shape[1])

    @property
    def architecture(self) -> Architecture:
        """The network that mlx_lm builds; see `model_config.runtime_architecture`."""
        return self._architecture


def open_artifact(path: Path) -> MlxArtifact:
    """Open the MLX artifact at `path`."""
    return MlxArtifact(path)


def _read_matrices(
    path: Path, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, _Matrix]:
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise ArtifactError(f"found no model*.safetensors in {path}; is the artifact complete?")
    stored: dict[str, SafetensorsTensor] = {}
    for file in files:
        tensors = read_header(file, path, foreign.STORED)
        twice = [tensor.name for tensor in tensors if tensor.name in stored]
        if twice:
            raise ArtifactError(f"{twice[0]} is stored in two files of {path}")
        stored |= {tensor.name: tensor for tensor in tensors}
    matrices = {}
    for weight in architecture.weights():
        module = weight.name.removesuffix(".weight")
        parts = {
            part: stored.pop(f"{module}.{part}")
            for part in AFFINE_PARTS
            if f"{module}.{part}" in stored
        }
        grid = _grid_of(module, weight.shape, parts, config)
        matrices[weight.name] = _Matrix(weight.shape, grid, parts)
    if stored:
        raise ArtifactError(f"tensors that are no part of the network: {listed(sorted(stored))}")
    return matrices


def _grid_of(
    module: str,
    shape: tuple[int, ...],
    parts: Mapping[str, SafetensorsTensor],
    config: Mapping[str, Any],
) -> str:
    """The grid that the stored arrays of `module` lie on; ArtifactError if none fits."""
    if "weight" not in parts:
        raise ArtifactError(f"{module}.weight is missing")
    weight = parts["weight"]
    if set(parts) == {"weight"} and weight.dtype in FLOATS.values():
        _expect_shape(weight, shape)
        return weight.dtype
    if set(parts) != set(AFFINE_PARTS) or weight.dtype != "U32" or len(shape) != 2:
        stored = ", ".join(f"{part} ({tensor.dtype})" for part, tensor in parts.items())
        raise ArtifactError(
            f"{module} is stored as {stored}; expected a float weight, or a U32 weight with scales "
            "and biases (MLX's other quantization modes are not covered)"
        )
    kind = _affine_kind(module, shape, parts, config)
    dtype = parts["scales"].dtype
    layout = GRIDS[kind.grid_name(dtype)].layout(shape)
    for part, expected in layout.items():
        _expect_shape(parts[part], expected.shape)
    if parts["biases"].dtype != dtype:
        raise ArtifactError(f"{module} has {dtype} scales and {parts['biases'].dtype} biases")
    return kind.grid_name(dtype)


def _affine_kind(
    module: str,
    shape: tuple[int, ...],
    parts: Mapping[str, SafetensorsTensor],
    config: Mapping[str, Any],
) -> Affine:
    """Bits and group from the shapes; what config.json says must agree."""
    columns = shape[1]
    words, groups = (parts[name].shape[-1:] or (0,) for name in ("weight", "scales"))
    bits, group = words[0] * 32 // columns, columns // max(groups[0], 1)
    if bits not in BITS or group not in GROUPS or parts["scales"].dtype not in FLOATS.values():
        raise ArtifactError(
            f"{module} has {words[0]} words and {groups[0]} {parts['scales'].dtype} scales for "
            f"{columns} weights a row, which is no affine format of MLX"
        )
    quantization = config.get("quantization") or {}
    if not isinstance(quantization, Mapping):
        raise ArtifactError("quantization in config.json should be an object")
    stated = quantization.get(module)
    if isinstance(stated, Mapping):
        said = (stated.get("bits"), stated.get("group_size"))
        if said != (bits, group) or stated.get("mode", "affine") != "affine":
            raise ArtifactError(
                f"config.json says {said[0]} bits in groups of {said[1]} for {module}; its "
                f"tensors hold {bits} bits in groups of {group}"
            )
    return Affine(bits, group)


def _expect_shape(tensor: SafetensorsTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape or tensor.nbytes % max(1, math.prod(shape)):
        raise ArtifactError(
            f"{tensor.name} should have shape {list(shape)}, found {list(tensor.shape)}"
        )
