"""The stored arrays of a planned tensor, under the names and shapes that NNCF gives them.

"NAME.weight" is (out, in), or (out, groups, group) where it is grouped; "NAME.weight/scale" and
"NAME.weight/zero_point" are (out, 1) or (out, groups, 1).
"""

from dataclasses import dataclass
from math import prod

from phiquant.planning.plan import PlanRow
from phiquant.targets.openvino.formats import FLOAT_GRIDS, INTEGER_GRIDS

BITS = {"u4": 4, "i4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32}
"""Bits of an element in a .bin file."""


@dataclass(frozen=True, slots=True)
class StoredConstant:
    """One array of the artifact: "weight", "scale" or "zero_point" of the tensor `output`."""

    output: str
    part: str
    element_type: str
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What the constant is called in the model."""
        suffix = "" if self.part == "weight" else f"/{self.part}"
        return f"self.{self.output}.weight{suffix}"

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return nbytes_of(self.element_type, self.shape)


def nbytes_of(element_type: str, shape: tuple[int, ...]) -> int:
    """Bytes of a constant in a .bin file."""
    return (prod(shape) * BITS[element_type] + 7) // 8


def stored_constants(row: PlanRow) -> tuple[StoredConstant, ...]:
    """The arrays of a planned tensor."""
    shape = row.shape
    if row.grid in FLOAT_GRIDS:
        # A norm's gains multiply (batch, tokens, hidden).
        stored = (1, 1, *shape) if len(shape) == 1 else shape
        return (StoredConstant(row.output, "weight", row.grid, stored),)
    grid = INTEGER_GRIDS[row.grid]
    rows, columns = shape
    grouped = (rows, columns // grid.group, grid.group) if grid.group else shape
    parameters = (*grouped[:-1], 1)
    parts = [
        StoredConstant(row.output, "weight", grid.element_type, grouped),
        StoredConstant(row.output, "scale", "f16", parameters),
    ]
    if not grid.symmetric:
        parts.append(StoredConstant(row.output, "zero_point", grid.element_type, parameters))
    return tuple(parts)
