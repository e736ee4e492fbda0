"""Every grid of GGUF that a Phi is stored on: floats, ggml's legacy blocks and its K-quants.

Each has one stored part, "data": the bytes of a row as ggml lays them out (`blocks.py`). All
but the floats are affine; a K-quant's scale and offset are the products d * scale and
-dmin * min that llama.cpp forms in float32, so `decode` agrees with its `dequantize_row_*` to
the bit.
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
from phiquant.quantization.float_grid import FloatGrid
from phiquant.quantization.floats import FLOAT_TYPES, cast, nearest, widen
from phiquant.quantization.grid import Codes, Floats, Grid, Levels, PartLayout, Parts
from phiquant.quantization.search.one_level import Search, search_levels
from phiquant.quantization.search.two_level import SuperSearch, search_super_levels
from phiquant.targets.gguf.blocks import LAYOUTS, pack_blocks, unpack_blocks

DATA = "data"
F32 = FLOAT_TYPES["F32"]
F16 = FLOAT_TYPES["F16"]
NO_OFFSET = np.float32(-0.0)
"""Adding -0.0 leaves every float as it is, -0.0 included; adding 0.0 does not."""


@dataclass(frozen=True, slots=True)
class FloatBytesGrid(FloatGrid):
    """F32, F16 or BF16, by ggml's name, as the bytes of a row."""

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """One part, "data": the bytes of a row."""
        width = shape[-1] * self.kind.stored.itemsize
        return {DATA: PartLayout(np.dtype(np.uint8), (*shape[:-1], width))}

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round each weight to the nearest float; ValueError if it is not finite, or becomes so."""
        return {DATA: cast(weights, self.kind).view(np.uint8)}

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns), exactly."""
        return widen(np.ascontiguousarray(parts[DATA]).view(self.kind.stored), self.kind)


@dataclass(frozen=True, slots=True)
class _BlockBytes:
    """What ggml's blocks of codes have in common: their bytes, by the layout of that name."""

    name: str

    @property
    def block(self) -> int:
        """Weights in a block."""
        return LAYOUTS[self.name].weights

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """One part, "data": the bytes of a row."""
        width = shape[-1] // self.block * LAYOUTS[self.name].nbytes
        return {DATA: PartLayout(np.dtype(np.uint8), (*shape[:-1], width))}

    def pack(self, codes: Codes, levels: Levels) -> dict[str, npt.NDArray[np.generic]]:
        """The bytes of `codes` (rows, columns) on `levels`."""
        fields = {name: part.view(np.int16) for name, part in levels.stored.items()}
        return {DATA: pack_blocks(LAYOUTS[self.name], len(codes), {"codes": codes, **fields})}

    def _fields(self, parts: Parts) -> tuple[Codes, dict[str, Codes]]:
        """The codes (rows, columns), and every other field (rows, count), from the bytes."""
        data = np.asarray(parts[DATA], np.uint8)
        layout = LAYOUTS[self.name]
        fields: dict[str, Codes] = {
            field: np.empty((len(data), data.shape[1] // layout.nbytes * part.count), np.int16)
            for field, part in layout.fields.items()
        }

        def work(first: int, last: int) -> None:
            for field, values in unpack_blocks(layout, data[first:last]).items():
                fields[field][first:last] = values

        in_bands(len(data), data.shape[1] // layout.nbytes * layout.weights, work)
        return fields.pop("codes"), fields


@dataclass(frozen=True, slots=True)
class LegacyBlockGrid(_BlockBytes):
    """A legacy format: 32 weights, a FP16 scale `d` and, unless symmetric, a FP16 offset `m`."""

    search: Search

    @property
    def group(self) -> int:
        """A block is one group."""
        return self.block

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        return self.search.codes

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """The levels of every block with the least (weighted) squared error found."""
        limit = F16.largest * (self.code_range[1] if self.search.symmetric else 1)
        check_weights(weights, self.block, limit, self.name)
        scale, offset = search_levels(
            weights, check_importance(importance, weights.shape[1]), self.search, F16
        )
        stored = {"d": cast(scale, F16)}
        if self.search.symmetric:
            offset[:] = NO_OFFSET
        else:
            stored["m"] = cast(offset, F16)
        return Levels(scale, offset, stored)

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""
        codes, fields = self._fields(parts)
        stored = {name: part.view(np.float16) for name, part in fields.items()}
        scale = widen(stored["d"], F16)
        offset = np.full_like(scale, NO_OFFSET)
        if not self.search.symmetric:
            offset = widen(stored["m"], F16)
        return codes, Levels(scale, offset, stored)

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """Codes for `d`, ones for `m`: (rows, 32) each."""
        steps = codes.astype(np.float32)
        return (steps,) if self.search.symmetric else (steps, np.ones_like(steps))

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """`d`, and `m` where there is one."""
        if self.search.symmetric:
            return (levels.scale[:, 0],)
        return levels.scale[:, 0], levels.offset[:, 0]

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """Another `d`, and `m` where there is one."""
        scale = nearest(parameters[0][:, None], F16)
        if self.search.symmetric:
            return Levels(scale, levels.offset, {"d": cast(scale, F16)})
        offset = nearest(parameters[1][:, None], F16)
        return Levels(scale, offset, {"d": cast(scale, F16), "m": cast(offset, F16)})

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns); ValueError if one is not finite or too large."""
        return encode_nearest(self, weights, importance)

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns) as llama.cpp sees them."""
        codes, levels = self.unpack(parts, columns)
        return decode_codes(codes, levels, F32)


@dataclass(frozen=True, slots=True)
class SuperBlockGrid(_BlockBytes):
    """A K-quant: 256 weights in groups whose scale and minimum are integers times FP16 units."""

    search: SuperSearch

    @property
    def group(self) -> int:
        """Weights that share one integer scale and minimum."""
        return self.search.groups.size

    @property
    def code_range(self) -> tuple[int, int]:
        """The least and the greatest code."""
        return self.search.groups.codes

    def fit(self, weights: Floats, importance: Floats | None = None) -> Levels:
        """The levels of every super-block with the least (weighted) squared error found."""
        search = self.search
        symmetric = search.groups.symmetric
        reach = search.subs[1] * search.groups.codes[1] if symmetric else search.most
        check_weights(weights, self.block, F16.largest * reach, self.name)
        levels = search_super_levels(
            weights, check_importance(importance, weights.shape[1]), search, F16
        )
        stored: dict[str, npt.NDArray[np.generic]] = {
            "d": cast(levels.units, F16),
            "scales": levels.subs,
        }
        if not symmetric:
            stored |= {"dmin": cast(levels.minimum_units, F16), "mins": levels.minima}
        return _super_levels(stored)

    def unpack(self, parts: Parts, columns: int) -> tuple[Codes, Levels]:
        """The inverse of `pack`."""
        codes, fields = self._fields(parts)
        stored: dict[str, npt.NDArray[np.generic]] = {
            name: part.view(np.float16) if name in ("d", "dmin") else part
            for name, part in fields.items()
        }
        return codes, _super_levels(stored)

    def regressors(self, codes: Codes, levels: Levels) -> tuple[Floats, ...]:
        """Integer scales times codes for `d`, minima for `dmin`: (rows, 256) each."""
        subs = np.repeat(levels.stored["scales"].astype(np.float32), self.group, axis=1)
        if self.search.groups.symmetric:
            return (subs * codes,)
        minima = levels.stored["mins"].astype(np.float32)
        return subs * codes, -np.repeat(minima, self.group, axis=1)

    def parameters(self, levels: Levels) -> tuple[Floats, ...]:
        """`d`, and `dmin` where there is one."""
        names = ("d",) if self.search.groups.symmetric else ("d", "dmin")
        return tuple(widen(levels.stored[name], F16)[:, 0] for name in names)

    def with_parameters(self, levels: Levels, parameters: Sequence[Floats]) -> Levels:
        """Another `d`, and `dmin` where there is one, with the same integers."""
        stored = dict(levels.stored)
        for name, values in zip(("d", "dmin"), parameters, strict=False):
            stored[name] = cast(nearest(values[:, None], F16), F16)
        return _super_levels(stored)

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round `weights` (rows, columns); ValueError if one is not finite or too large."""
        return encode_nearest(self, weights, importance)

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns) as llama.cpp sees them."""
        codes, levels = self.unpack(parts, columns)
        return decode_codes(codes, levels, F32)


def _super_levels(stored: dict[str, npt.NDArray[np.generic]]) -> Levels:
    """The float32 products that llama.cpp forms; exact, as an FP16 times 8 bits fits 24."""
    subs = stored["scales"].astype(np.float32)
    span = subs.shape[1] // stored["d"].shape[1]
    with np.errstate(invalid="ignore"):  # A broken file may hold infinities and NaN.
        scale = np.repeat(widen(stored["d"], F16), span, axis=1) * subs
        offset = np.full_like(scale, NO_OFFSET)
        if "dmin" in stored:
            minima = stored["mins"].astype(np.float32)
            offset = -(np.repeat(widen(stored["dmin"], F16), span, axis=1) * minima)
    return Levels(scale, offset, stored)


def _ranges(
    top: int, more: tuple[float, ...], cuts: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
) -> tuple[tuple[float, float], ...]:
    """Starts whose range is `top` + `more` scales, cut at the lower end, the upper or between."""
    return tuple((top + steps, cut) for steps in more for cut in cuts)


def _both_ends(half: int, more: float, count: int) -> tuple[tuple[float, float], ...]:
    """Starts for codes -half .. half - 1, the extreme weight at either end.

    From levels that are wider than they need be by `more` codes to ones that cut 1.5 off.
    """
    ends = np.linspace(half - more, half + 1.5, count)
    return tuple((sign * float(end), 0.0) for sign in (-1.0, 1.0) for end in ends)


def _pairs(most: int, more: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """Divisors for both units."""
    return tuple((most + first, most + second) for first in more for second in more)


def _legacy(name: str, top: int) -> LegacyBlockGrid:
    starts = _ranges(top, (-0.5, 0.0, 0.5, 1.0))
    return LegacyBlockGrid(name, Search(32, (0, top), starts, 2, symmetric=False))


def _legacy_symmetric(name: str, half: int) -> LegacyBlockGrid:
    starts = _both_ends(half, 1.0, 8)
    return LegacyBlockGrid(name, Search(32, (-half, half - 1), starts, 2, symmetric=True))


def _super(name: str, shape: tuple[int, int], most: int, more: tuple[float, ...]) -> SuperBlockGrid:
    """Groups of `shape` (size, greatest code), integers up to `most`."""
    size, top = shape
    groups = Search(size, (0, top), _ranges(top, more), 1, symmetric=False)
    divisors = _pairs(most, (-2.0, -1.0, 0.0, 0.5, 1.0))
    return SuperBlockGrid(name, SuperSearch(groups, 256 // size, (0, most), most, divisors))


def _super_symmetric(
    name: str, half: int, subs: int, starts: tuple[tuple[float, float], ...]
) -> SuperBlockGrid:
    """Groups of 16, codes and integer scales from -half and -subs on."""
    groups = Search(16, (-half, half - 1), starts, 1, symmetric=True)
    divisors = tuple((more - subs, 1.0) for more in (-0.5, 0.0, 0.5, 1.0, 1.5, 2.0))
    return SuperBlockGrid(name, SuperSearch(groups, 16, (-subs, subs - 1), 0, divisors))


# How many starts: more of them find better levels, at a time per weight in proportion. Formats
# of many codes gain from levels wider than need be, for the choice among many fine alignments;
# those of few codes gain from cutting.
GRIDS: dict[str, Grid] = {
    "F32": FloatBytesGrid(FLOAT_TYPES["F32"]),
    "F16": FloatBytesGrid(FLOAT_TYPES["F16"]),
    "BF16": FloatBytesGrid(FLOAT_TYPES["BF16"]),
    "Q8_0": LegacyBlockGrid(
        "Q8_0",
        # -128 could be stored, but llama.cpp's products negate codes within eight bits.
        Search(32, (-127, 127), tuple((128 - 0.75 * i, 0.0) for i in range(12)), 1, True),
    ),
    "Q4_0": _legacy_symmetric("Q4_0", 8),
    "Q4_1": _legacy("Q4_1", 15),
    "Q5_0": _legacy_symmetric("Q5_0", 16),
    "Q5_1": _legacy("Q5_1", 31),
    "Q2_K": _super("Q2_K", (16, 3), 15, (-0.5, 0.0, 0.5, 1.0)),
    "Q3_K": _super_symmetric("Q3_K", 4, 32, _both_ends(4, 1.0, 8)),
    "Q4_K": _super("Q4_K", (32, 15), 63, (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)),
    "Q5_K": _super("Q5_K", (32, 31), 63, (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0)),
    "Q6_K": _super_symmetric("Q6_K", 32, 128, _both_ends(32, 2.0, 10)),
}
