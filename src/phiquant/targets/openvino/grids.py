"""Every grid of OpenVINO that a Phi is stored on: compressed integers, and floats.

A compressed tensor has the parts "weight" (i4 or u4, two a byte; i8 or u8), "scale" (FP16, one a
group) and, where it is asymmetric, "zero_point" (of the weight's type, one a group). The runtime
computes `scale * (code - zero_point)`. A group is 32, 64 or 128 weights of a row, or the row.
A float tensor has the part "weight" alone.

Zero points are one a byte here, also those of u4, which the file holds as a run of nibbles: with
an odd number of groups a row, bands of rows would share bytes.
Source: the decompression subgraphs that NNCF writes and the plugins look for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast as as_type

import numpy as np
import numpy.typing as npt

from phiquant.quantization.affine import (
    check_importance,
    check_weights,
    decode_codes,
    encode_nearest,
)
from phiquant.quantization.float_grid import FloatGrid
from phiquant.quantization.floats import FLOAT_TYPES, cast, nearest, widen
from phiquant.quantization.grid import Codes, Floats, Levels, PartLayout, Parts
from phiquant.quantization.nibbles import pack, unpack
from phiquant.quantization.search.lanes import TILE
from phiquant.quantization.search.one_level import Search, search_levels, search_zero_points

GROUPS = (32, 64, 128)
SCALES = FLOAT_TYPES["F16"]


@dataclass(frozen=True, slots=True)
class ElementGrid(FloatGrid):
    """f32, f16 or bf16, by OpenVINO's name."""

    @property
    def name(self) -> str:
        """OpenVINO's name of the element type."""
        return self.element_type

    @property
    def element_type(self) -> str:
        """OpenVINO's name of the element type."""
        return self.kind.name.lower()


@dataclass(frozen=True, slots=True)
class IntegerGrid:
    """Codes of 4 or 8 bits; groups of `group` weights, or whole rows, share a scale."""

    bits: int
    symmetric: bool
    group: int
    """Weights that share a scale; 0 for a whole row ("per channel")."""

    @property
    def element_type(self) -> str:
        """OpenVINO's name of the codes' type: signed for symmetric grids."""
        return f"{'i' if self.symmetric else 'u'}{self.bits}"

    @property
    def name(self) -> str:
        """The element type and the group ("i4 g64", "u8 channel")."""
        return f"{self.element_type} {f'g{self.group}' if self.group else 'channel'}"

    @property
    def block(self) -> int:
        """A group; the kernels take the weights of a row in eights."""
        return self.group or TILE

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        if not self.symmetric:
            return 0, (1 << self.bits) - 1
        return (-8, 7) if self.bits == 4 else (-127, 127)

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """Parts "weight", "scale" and, where asymmetric, "zero_point"."""
        rows, columns = shape
        groups = columns // self.group if self.group else 1
        code = np.dtype(np.int8 if self.element_type == "i8" else np.uint8)
        parts = {
            "weight": PartLayout(code, (rows, columns * self.bits // 8)),
            "scale": PartLayout(SCALES.stored, (rows, groups)),
        }
        if not self.symmetric:
            parts["zero_point"] = PartLayout(np.dtype(np.uint8), (rows, groups))
        return parts

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """The levels of every group with the least (weighted) squared error found."""
        check_weights(weights, self.block, SCALES.largest, self.name)
        grid = self.over(weights.shape[1])
        weighed = check_importance(importance, weights.shape[1])
        if self.symmetric:
            scale, offset = search_levels(weights, weighed, grid._search(), SCALES)
            return Levels(scale, offset, {"scale": cast(scale, SCALES)})
        scale, zero = search_zero_points(weights, weighed, grid._search(), SCALES)
        stored = {"scale": cast(scale, SCALES), "zero_point": zero.astype(np.uint8)}
        return Levels(scale, -scale * zero, stored)

    def over(self, columns: int) -> "IntegerGrid":
        """The same grid with the group spelt out for rows of `columns` weights."""
        return self if self.group else IntegerGrid(self.bits, self.symmetric, columns)

    def pack(self, codes: Codes, levels: Levels) -> dict[str, npt.NDArray[np.generic]]:
        """The parts for `codes` (rows, columns) on `levels`."""
        if self.bits == 4:
            return {"weight": pack(codes), **levels.stored}
        kind = np.int8 if self.symmetric else np.uint8
        return {"weight": codes.astype(kind), **levels.stored}

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""
        weight = parts["weight"]
        if self.bits == 4:
            codes = unpack(np.ascontiguousarray(weight).view(np.uint8), self.symmetric)
        else:
            codes = weight.astype(np.int16)
        scale = widen(np.ascontiguousarray(parts["scale"]), SCALES)
        offset = np.zeros_like(scale)
        if not self.symmetric:
            offset = -scale * parts["zero_point"].astype(np.float32)
        return codes, Levels(
            scale, offset, {name: parts[name] for name in parts if name != "weight"}
        )

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """Codes less their zero point: (rows, group)."""
        return (codes.astype(np.float32) - self._zeros(levels),)

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """The scale."""
        return (levels.scale[:, 0],)

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """The levels with another scale and the same zero point."""
        scale = nearest(parameters[0][:, None], SCALES)
        stored = {**levels.stored, "scale": cast(scale, SCALES)}
        return Levels(scale, -scale * self._zeros(levels), stored)

    def _zeros(self, levels: Levels) -> Floats:
        if self.symmetric:
            return np.zeros_like(levels.scale)
        return levels.stored["zero_point"].astype(np.float32)

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns); ValueError if one is not finite or too large."""
        if self.group:
            return encode_nearest(self, weights, importance)
        spelt = self.over(weights.shape[1]) if weights.ndim == 2 else self
        check_weights(weights, self.block, SCALES.largest, self.name)
        return encode_nearest(spelt, weights, importance)

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns): the centred code times the scale, in float32."""
        codes, levels = self.unpack(parts, columns)
        group = self.group or columns
        if not self.symmetric:
            zero = as_type(npt.NDArray[np.uint8], parts["zero_point"]).astype(np.int16)
            codes = codes - np.repeat(zero, group, axis=1)
        centred = Levels(levels.scale, np.zeros_like(levels.scale), {})
        return decode_codes(codes, centred, FLOAT_TYPES["F32"])

    def _search(self) -> Search:
        low, high = self.code_range
        if not self.symmetric:
            extra = (-1.0, -0.5, 0.0, 0.5, 1.0, 2.0) if self.bits == 4 else (0.0,)
            cuts = tuple((high + more, cut) for more in extra for cut in (0.0, 0.5, 1.0))
            return Search(self.group, (low, high), cuts, 3, False)
        # The extreme weight meets the extreme code of its sign or of the other, or lies a bit out.
        steps: tuple[float, ...] = (127.0, 127.5, 125.0, 128.5, 130.0, 120.0)
        refits = 3
        if self.bits == 4:
            steps = (-8.0, -7.5, -8.5, -7.0, -9.0, 7.0, 7.5, 8.0)
        if self.bits == 4 and self.group in GROUPS:  # fewer, well spread: faster
            steps, refits = (-8.0, -7.4, -8.6, -9.2, 7.0, 7.7), 1
        return Search(self.group, (low, high), tuple((step, 0.0) for step in steps), refits, True)
