"""Every grid of MLX that a Phi is stored on: affine groups of 2 to 8 bits, and floats.

An affine tensor has the parts "weight" (uint32: the codes of a row as one little-endian stream
of bits), "scales" and "biases" (one a group, in the model's float type). A float tensor has the
part "weight" alone. BF16 arrays are uint16 bit patterns.

`decode` is mx.dequantize on the CPU to the bit, which rounds both the product scale * code and
its sum with the bias to the parameters' type. The quantized matrix products keep these in
float32; hence levels are searched without that rounding.
Source of the layout: mlx/ops.cpp and mlx/backend/cpu/quantized.cpp of ml-explore/mlx.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.quantization.affine import (
    check_importance,
    check_weights,
    decode_codes,
    encode_nearest,
)
from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import FloatType, cast, nearest, widen
from phiquant.quantization.grid import Codes, Floats, Levels, PartLayout, Parts
from phiquant.quantization.search.one_level import Search, search_levels
from phiquant.targets.mlx.bits import pack_bits, unpack_bits

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)

_FEW = ((0.0, 0.5, 1.0), (0.5,))
_STARTS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Bits: by how many codes the range is narrower than the group's, and where it is cut. With
    # many codes little is to be cut, but coarse scales and biases make it worth to try many.
    2: ((-0.5, 0.0, 0.5, 1.0, 1.5), (0.0, 0.5, 1.0)),
    3: ((-0.5, 0.0, 0.5, 1.0), (0.0, 1.0)),
    4: _FEW,
    5: _FEW,
    6: ((-2.0, -1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 0.33, 0.67, 1.0)),
    8: ((-4.0, -3.0, -2.0, -1.0, 0.0, 1.0), (0.0, 0.5, 1.0)),
}


@dataclass(frozen=True, slots=True)
class GroupedAffineGrid:
    """Groups of 32, 64 or 128 weights with a scale and a bias of type `parameters`."""

    bits: int
    group: int
    kind: FloatType

    def __post_init__(self) -> None:
        if self.bits not in BITS or self.group not in GROUPS:
            raise ValueError(
                f"MLX stores {BITS} bits in groups of {GROUPS}, got {self.bits} bits in groups "
                f"of {self.group}: choose one of those."
            )

    @property
    def name(self) -> str:
        """Bits and group ("4bit-g64"), the same for every type of the parameters."""
        return f"{self.bits}bit-g{self.group}"

    @property
    def block(self) -> int:
        """A group; always whole words too."""
        return self.group

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        return 0, (1 << self.bits) - 1

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """The parts "weight", "scales" and "biases"."""
        rows, columns = shape[:-1], shape[-1]
        parameters = PartLayout(self.kind.stored, (*rows, columns // self.group))
        words = PartLayout(np.dtype(np.uint32), (*rows, columns * self.bits // 32))
        return {"weight": words, "scales": parameters, "biases": parameters}

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """The levels of every group with the least (weighted) squared error found."""
        # The runtime forms scale * code up to the whole range of a group, in `parameters`.
        check_weights(weights, self.block, 0.375 * self.kind.largest, self.name)
        scale, offset = search_levels(
            weights, check_importance(importance, weights.shape[1]), self._search(), self.kind
        )
        stored = {"scales": cast(scale, self.kind), "biases": cast(offset, self.kind)}
        return Levels(scale, offset, stored)

    def pack(self, codes: Codes, levels: Levels) -> dict[str, npt.NDArray[np.generic]]:
        """The three parts for `codes` (rows, columns) on `levels`."""
        return {"weight": pack_bits(codes, self.bits), **levels.stored}

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""
        stored = {name: np.ascontiguousarray(parts[name]) for name in ("scales", "biases")}
        words = np.ascontiguousarray(parts["weight"]).view(np.uint32)
        codes = np.empty((len(words), columns), np.int16)

        def work(first: int, last: int) -> None:
            codes[first:last] = unpack_bits(words[first:last], self.bits)

        in_bands(codes.shape[0], columns, work)
        scale = widen(stored["scales"], self.kind)
        return codes, Levels(scale, widen(stored["biases"], self.kind), stored)

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """Codes for the scale, ones for the bias: (rows, group) each."""
        return codes.astype(np.float32), np.ones(codes.shape, np.float32)

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """The scale and the bias."""
        return levels.scale[:, 0], levels.offset[:, 0]

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """Another scale and bias."""
        scale, offset = (nearest(part[:, None], self.kind) for part in parameters)
        stored = {"scales": cast(scale, self.kind), "biases": cast(offset, self.kind)}
        return Levels(scale, offset, stored)

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns); ValueError if one is not finite or too large."""
        return encode_nearest(self, weights, importance)

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns) as mx.dequantize returns them."""
        codes, levels = self.unpack(parts, columns)
        return decode_codes(codes, levels, self.kind)

    def _search(self) -> Search:
        top = self.code_range[1]
        extra, cuts = _STARTS[self.bits]
        starts = tuple((top + more, cut) for more in extra for cut in cuts)
        return Search(self.group, self.code_range, starts, 2, False, zeroed=True, decoded=True)
