"""The types that an OpenVINO artifact can have, and the grids they are made of.

A compressed type is bits, mode and group ("int4-sym-g64"), which optimum-cli's options
--weight-format, --sym and --group-size say. The matrices of the layers get it; embedding and
head, and with `ratio` the most sensitive layers, get the backup, 8 bits per channel.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.planning.precision import Precision
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import Grid
from phiquant.targets.openvino.grids import GROUPS, ElementGrid, IntegerGrid

INTEGER_GRIDS: Mapping[str, IntegerGrid] = {
    grid.name: grid
    for bits in (4, 8)
    for symmetric in (True, False)
    for group in (0, *GROUPS)
    for grid in [IntegerGrid(bits, symmetric, group)]
}
FLOAT_GRIDS: Mapping[str, ElementGrid] = {
    "f16": ElementGrid(FLOAT_TYPES["F16"]),
    "f32": ElementGrid(FLOAT_TYPES["F32"]),
}
READABLE_FLOATS: Mapping[str, ElementGrid] = {
    **FLOAT_GRIDS,
    "bf16": ElementGrid(FLOAT_TYPES["BF16"]),
}
"""Floats that other tools store too: optimum-cli keeps a BF16 checkpoint as it is."""
GRIDS: Mapping[str, Grid] = {**INTEGER_GRIDS, **FLOAT_GRIDS}
"""Every grid that a plan of this target may name."""

FLOATS: Mapping[str, str] = {"fp16": "f16", "fp32": "f32"}
DEFAULTS: Mapping[Precision, str] = {
    "int4": "int4-sym-g64",
    "int8": "int8-asym-channel",
    "fp16": "fp16",
    "fp32": "fp32",
}
CHOICE = (
    f"int4 or int8, sym or asym, and a group of {', '.join(map(str, GROUPS))} or channel (as in "
    f"int4-sym-g64), or one of {', '.join(FLOATS)}"
)
"""The types in words."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A compressed type: bits, mode and group (0 per channel)."""

    bits: int
    symmetric: bool
    group: int

    @property
    def name(self) -> str:
        """The type's name ("int4-sym-g64")."""
        mode = "sym" if self.symmetric else "asym"
        return f"int{self.bits}-{mode}-{f'g{self.group}' if self.group else 'channel'}"

    @property
    def grid(self) -> IntegerGrid:
        """What its matrices are stored on."""
        return IntegerGrid(self.bits, self.symmetric, self.group)


COMPRESSED: Mapping[str, Compressed] = {
    kind.name: kind
    for bits in (4, 8)
    for symmetric in (True, False)
    for group in (*GROUPS, 0)
    for kind in [Compressed(bits, symmetric, group)]
}


def _sentence(kind: Compressed) -> str:
    mode = "a scale" if kind.symmetric else "a scale and a zero point"
    return f"{kind.bits}-bit codes, {mode} for every {kind.group or 'row of'} weights"


TYPES: Mapping[str, str] = {kind.name: _sentence(kind) for kind in COMPRESSED.values()} | {
    "fp16": "half precision, 16 bits: 11 bits of precision, nothing beyond 65504",
    "fp32": "single precision, 32 bits",
}


def compressed_type(name: str) -> Compressed | None:
    """Bits, mode and group of a compressed type, None for a float type."""
    return COMPRESSED.get(name)


def named_grid(name: str) -> IntegerGrid | None:
    """The integer grid called `name` ("i4 g64"), also one with a group that is not made here."""
    match = re.fullmatch(r"([iu])([48]) (?:g(\d+)|channel)", name)
    return IntegerGrid(int(match[2]), match[1] == "i", int(match[3] or 0)) if match else None
