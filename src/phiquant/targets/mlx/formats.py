"""The types that an MLX artifact can have, and which grid each kind of tensor gets.

A quantized type is bits x group ("4bit-g64"); scales and offsets are stored in the parameter
dtype, the float type of everything that is not quantized. MLX promotes mixed float types to the
wider one for all activations after, so an artifact has exactly one parameter dtype.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.planning.precision import Precision
from phiquant.quantization.float_grid import FloatGrid
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import Grid
from phiquant.targets.form import Request
from phiquant.targets.mlx.grids import BITS, GROUPS, GroupedAffineGrid

FLOATS: Mapping[str, str] = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
"""Float type → its element type in safetensors."""
DTYPE_NAMES: Mapping[str, str] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""Element type → the name that config.json and mlx_lm use."""

DEFAULTS: Mapping[Precision, str] = {
    "int4": "4bit-g64",
    "int8": "8bit-g64",
    "fp16": "fp16",
    "fp32": "fp32",
}

CHOICE = (
    f"bits among {', '.join(map(str, BITS))} and a group of {', '.join(map(str, GROUPS))} "
    f"(as in 4bit-g64), or one of {', '.join(FLOATS)}"
)
"""The types in words."""

TYPES: Mapping[str, str] = {
    f"{bits}bit-g{group}": f"{bits}-bit codes, a scale and an offset for every {group} weights"
    for bits in BITS
    for group in GROUPS
} | {
    "bf16": "brain floating point, 16 bits: the range of FP32, 8 bits of precision",
    "fp16": "half precision, 16 bits: 11 bits of precision, nothing beyond 65504",
    "fp32": "single precision, 32 bits",
}


@dataclass(frozen=True, slots=True)
class Affine:
    """Codes of `bits` bits; each group of `group` weights shares a scale and an offset."""

    bits: int
    group: int

    @property
    def name(self) -> str:
        """The type's name ("4bit-g64")."""
        return f"{self.bits}bit-g{self.group}"

    def grid_name(self, parameters: str) -> str:
        """The name of its grid with scales and offsets of the element type `parameters`."""
        return f"{self.name} {parameters}"


AFFINE_GRIDS: Mapping[str, Affine] = {
    Affine(bits, group).grid_name(parameters): Affine(bits, group)
    for bits in BITS
    for group in GROUPS
    for parameters in FLOATS.values()
}
"""Name of an affine grid → its bits and group."""

GRIDS: Mapping[str, Grid] = {name: FloatGrid(FLOAT_TYPES[name]) for name in FLOATS.values()} | {
    kind.grid_name(parameters): GroupedAffineGrid(kind.bits, kind.group, FLOAT_TYPES[parameters])
    for kind in AFFINE_GRIDS.values()
    for parameters in FLOATS.values()
}
"""Every grid that a plan of this target may name."""


@dataclass(frozen=True, slots=True)
class MlxForm:
    """The type, and the tokens to serve (None: the original training length)."""

    type: str
    context: int | None
    divides = False

    @property
    def given(self) -> Mapping[str, str]:
        """MLX's artifacts leave no choices."""
        return {}


def read_form(request: Request) -> MlxForm:
    """The form that is asked for; RequestError for a type that MLX does not have."""
    return MlxForm(request.type_among(TYPES, DEFAULTS, "MLX", CHOICE), request.context)


def affine_type(name: str) -> Affine | None:
    """The bits and group of a quantized type, None for a float type."""
    match = re.fullmatch(r"(\d)bit-g(\d+)", name)
    return Affine(int(match[1]), int(match[2])) if match else None
