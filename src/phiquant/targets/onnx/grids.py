"""Every grid that an ONNX artifact stores a Phi on: blocks of 4 or 8 bits, and floats.

A block tensor has the parts

    "weight"       uint8 (rows, blocks, block * bits / 8)   codes, low nibble first
    "scales"       float32 or float16 (rows, blocks)
    "zero_points"  uint8 (rows, ceil(blocks * bits / 8))    codes, low nibble first; asymmetric only

which are inputs B, scales and zero_points of MatMulNBits as they are, and, with the last two axes
of the codes taken as one, of GatherBlockQuantized. Without zero points the middle code,
2^(bits - 1), stands for zero. `decode` is scale * (code - zero point), the product rounded to
float32, which is what the runtime's CPU kernels dequantize to.
Source: docs/ContribOperators.md of microsoft/onnxruntime, and the kernels' answers (tests).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.quantization.affine import (
    check_importance,
    check_weights,
    encode_nearest,
)
from phiquant.quantization.float_grid import FloatGrid
from phiquant.quantization.floats import FLOAT_TYPES, FloatType, cast, nearest, widen
from phiquant.quantization.grid import Codes, Floats, Levels, PartLayout, Parts
from phiquant.quantization.nibbles import pack
from phiquant.quantization.search.one_level import Search, search_levels, search_zero_points

BITS = (4, 8)
BLOCKS = (16, 32, 64, 128, 256)
UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True, slots=True)
class BlockwiseGrid:
    """Blocks of 16 to 256 weights with a scale and, unless symmetric, an integer zero point."""

    bits: int
    block: int
    symmetric: bool
    kind: FloatType

    def __post_init__(self) -> None:
        if self.bits not in BITS or self.block not in BLOCKS:
            raise ValueError(
                f"MatMulNBits stores {BITS} bits in blocks of {BLOCKS} here, got {self.bits} bits "
                f"in blocks of {self.block}: choose one of those."
            )

    @property
    def name(self) -> str:
        """Bits, block and symmetry ("int4-b32"), the same for both types of scales."""
        return f"int{self.bits}-b{self.block}{'-sym' if self.symmetric else ''}"

    @property
    def group(self) -> int:
        """A block shares one scale."""
        return self.block

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code as stored."""
        return 0, (1 << self.bits) - 1

    @property
    def middle(self) -> int:
        """The code that stands for zero where none is stored."""
        return 1 << (self.bits - 1)

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """The parts "weight", "scales" and, unless symmetric, "zero_points"."""
        rows, blocks = shape[:-1], shape[-1] // self.block
        parts = {
            "weight": PartLayout(UINT8, (*rows, blocks, self.block * self.bits // 8)),
            "scales": PartLayout(self.kind.stored, (*rows, blocks)),
        }
        if not self.symmetric:
            parts["zero_points"] = PartLayout(UINT8, (*rows, (blocks * self.bits + 7) // 8))
        return parts

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """The levels of every block with the least (weighted) squared error found."""
        check_weights(weights, self.block, 0.375 * self.kind.largest, self.name)
        given = check_importance(importance, weights.shape[1])
        if self.symmetric:
            scale, _ = search_levels(weights, given, self._search(), self.kind)
            zeros = np.full_like(scale, self.middle)
        else:
            scale, zeros = search_zero_points(weights, given, self._search(), self.kind)
        stored: dict[str, npt.NDArray[np.generic]] = {"scales": cast(scale, self.kind)}
        if not self.symmetric:
            stored["zero_points"] = zeros.astype(np.uint8)
        return Levels(scale, -scale * zeros, stored)

    def pack(self, codes: Codes, levels: Levels) -> dict[str, npt.NDArray[np.generic]]:
        """The parts for `codes` (rows, columns) on `levels`."""
        rows, columns = codes.shape
        packed = pack_codes(codes, self.bits)
        parts = {"weight": packed.reshape(rows, columns // self.block, -1), **levels.stored}
        if not self.symmetric:
            zeros = levels.stored["zero_points"].astype(np.int16)
            parts["zero_points"] = pack_codes(zeros, self.bits)
        return parts

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""
        codes = unpack_codes(parts["weight"].reshape(len(parts["weight"]), -1), self.bits, columns)
        zeros = self._zeros(parts, columns)
        stored = {"scales": np.ascontiguousarray(parts["scales"])}
        if not self.symmetric:
            stored["zero_points"] = zeros.astype(np.uint8)
        scale = widen(stored["scales"], self.kind)
        return codes, Levels(scale, -scale * zeros, stored)

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """Codes less their zero point: (rows, block)."""
        return (codes.astype(np.float32) - self._level_zeros(levels),)

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """The scale."""
        return (levels.scale[:, 0],)

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """The levels with another scale and the same zero point."""
        scale = nearest(parameters[0][:, None], self.kind)
        stored = {**levels.stored, "scales": cast(scale, self.kind)}
        return Levels(scale, -scale * self._level_zeros(levels), stored)

    def _level_zeros(self, levels: Levels) -> Floats:
        if self.symmetric:
            return np.full(levels.scale.shape, self.middle, np.float32)
        return levels.stored["zero_points"].astype(np.float32)

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns); ValueError if one is not finite or too large."""
        return encode_nearest(self, weights, importance)

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns) as the runtime dequantizes them."""
        codes, levels = self.unpack(parts, columns)
        blocks = codes.reshape(*levels.scale.shape, self.block).astype(np.float32)
        blocks -= self._zeros(parts, columns)[..., None]
        blocks *= levels.scale[..., None]
        return blocks.reshape(codes.shape)

    def _zeros(self, parts: Parts, columns: int) -> Floats:
        if self.symmetric:
            return np.full(parts["scales"].shape, self.middle, np.float32)
        zeros = unpack_codes(parts["zero_points"], self.bits, columns // self.block)
        return zeros.astype(np.float32)

    def _search(self) -> Search:
        top = self.code_range[1]
        # Starts that cut off the extreme weights always lower the squared error. At 4 bits in
        # blocks of 32 they raised the divergence of a 135 M model all the same (its tied form,
        # symmetric: from 0.68 to 0.72 nats a token, with zero points: from 0.52 to 0.54).
        top, half = self.code_range[1], self.middle
        cutting = self.bits == 4 and self.block >= 128
        if self.symmetric:
            # At 4 bits the extreme weight, whatever its sign, takes the extra code.
            steps: tuple[float, ...] = (-half,)
            if self.bits == 8:
                steps = (-half, -half - 0.5, half - 1, half - 0.5)
            elif cutting:
                steps = (-half, -half - 0.7, -half - 1.5, -half - 2.4)
            starts = tuple((float(step), 0.0) for step in steps)
            return Search(self.block, (-half, half - 1), starts, 2, True)
        extra = (-0.5, 0.5) if self.bits == 8 else (0.6, 1.2, 1.8) if cutting else ()
        cut = tuple((top + more, cut) for more in extra for cut in (0.0, 0.5, 1.0))
        return Search(self.block, self.code_range, ((float(top), 0.0), *cut), 2, False)


def pack_codes(codes: Codes, bits: int) -> npt.NDArray[np.uint8]:
    """Bytes (rows, ceil(columns * bits / 8)) of codes; with 4 bits the first is the low nibble."""
    if bits == 8:
        return codes.astype(np.uint8)
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return pack(codes)


def unpack_codes(packed: npt.NDArray[np.generic], bits: int, columns: int) -> Codes:
    """The inverse of `pack_codes` for rows of `columns` codes."""
    if bits == 8:
        return packed.astype(np.int16)
    codes = np.empty((len(packed), packed.shape[1] * 2), np.int16)
    codes[:, ::2] = packed.view(np.uint8) & 15
    codes[:, 1::2] = packed.view(np.uint8) >> 4
    return codes[:, :columns]


FLOAT_GRIDS = {name: FloatGrid(FLOAT_TYPES[name]) for name in ("F32", "F16")}
