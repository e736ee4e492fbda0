"""Byte layouts of ggml's block formats, as tables, and the two kernels that read them.

A block stores fields: the weights' codes, the groups' integer scales and minima, and FP16
numbers, all as integers cut into runs of bits. A run says

    for i in range(length):
        byte[to + i] |= ((value[first + step * i] >> right) & mask) << left

so one table a format serves packing and unpacking. A stored integer is (value + zero) ^ flip:
`zero` shifts a signed range to start at 0, and Q8_0's and Q6_K's two's complement bytes are a
shift by 128 with the highest bit flipped.

Source of the layouts: the structs in ggml-common.h of llama.cpp.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.grid import Codes

BitRun = tuple[int, int, int, int, int, int, int]
"""(first, step, to, length, right, mask, left)"""


@dataclass(frozen=True, slots=True)
class Field:
    """One kind of number in a block: `count` of them, and where their bits lie."""

    count: int
    runs: tuple[BitRun, ...]
    zero: int = 0
    flip: int = 0

    def table(self) -> npt.NDArray[np.int32]:
        """The runs as an array for the kernels."""
        return np.array(self.runs, np.int32)


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """One format: weights and bytes a block, and its fields by name."""

    weights: int
    nbytes: int
    fields: dict[str, Field]


def _half(at: int) -> Field:
    """An FP16 number, little-endian."""
    return Field(1, ((0, 1, at, 1, 0, 255, 0), (0, 1, at + 1, 1, 8, 255, 0)))


def _nibbles(at: int) -> tuple[BitRun, ...]:
    """32 codes: byte i holds code i below and code i + 16 above."""
    return ((0, 1, at, 16, 0, 15, 0), (16, 1, at, 16, 0, 15, 4))


def _fifth_bits(at: int) -> tuple[BitRun, ...]:
    """Bit 4 of 32 codes: code i is bit i of a 32-bit word."""
    return tuple((bit, 8, at, 4, 4, 1, bit) for bit in range(8))


def _quarters(at: int, right: int, bits: int) -> tuple[BitRun, ...]:
    """256 codes in halves of 128: byte i of 32 holds codes i, i + 32, i + 64 and i + 96."""
    mask = (1 << bits) - 1
    return tuple(
        (128 * half + 32 * part, 1, at + 32 * half, 32, right, mask, 2 * part)
        for half in range(2)
        for part in range(4)
    )


def _pairs(at: int) -> tuple[BitRun, ...]:
    """256 codes in chunks of 64: byte i of 32 holds code i below and code i + 32 above."""
    return tuple(
        (64 * chunk + 32 * part, 1, at + 32 * chunk, 32, 0, 15, 4 * part)
        for chunk in range(4)
        for part in range(2)
    )


def _planes(at: int, right: int) -> tuple[BitRun, ...]:
    """One bit of 256 codes: bit j of byte i belongs to code 32 j + i."""
    return tuple((32 * plane, 1, at, 32, right, 1, plane) for plane in range(8))


def _six_bits(at: int, own: int) -> tuple[BitRun, ...]:
    """Eight 6-bit numbers in 12 bytes shared by scales (`own` 0) and minima (`own` 1).

    Numbers 0-3 are the low 6 bits of bytes 0-3 (scales) or 4-7 (minima); of numbers 4-7 the low
    4 bits are a half of bytes 8-11, the high 2 bits lie above numbers 0-3.
    """
    mine = at + 4 * own
    return (
        (0, 1, mine, 4, 0, 63, 0),
        (4, 1, at + 8, 4, 0, 15, 4 * own),
        (4, 1, mine, 4, 4, 3, 6),
    )


_Q3_SCALES: tuple[BitRun, ...] = (
    # 16 numbers of 6 bits in 12 bytes: low 4 bits in bytes 0-7, high 2 bits in bytes 8-11.
    (0, 1, 96, 8, 0, 15, 0),
    (8, 1, 96, 8, 0, 15, 4),
    *((4 * part, 1, 104, 4, 4, 3, 2 * part) for part in range(4)),
)

_Q6_LOW: tuple[BitRun, ...] = tuple(
    # Byte i of 64 holds the low 4 bits of code i below and of code i + 64 above.
    (128 * half + 64 * part, 1, 64 * half, 64, 0, 15, 4 * part)
    for half in range(2)
    for part in range(2)
)

LAYOUTS: dict[str, BlockLayout] = {
    # d, qs[16]
    "Q4_0": BlockLayout(32, 18, {"d": _half(0), "codes": Field(32, _nibbles(2), zero=8)}),
    # d, m, qs[16]
    "Q4_1": BlockLayout(32, 20, {"d": _half(0), "m": _half(2), "codes": Field(32, _nibbles(4))}),
    # d, qh[4], qs[16]
    "Q5_0": BlockLayout(
        32, 22, {"d": _half(0), "codes": Field(32, _nibbles(6) + _fifth_bits(2), zero=16)}
    ),
    # d, m, qh[4], qs[16]
    "Q5_1": BlockLayout(
        32,
        24,
        {"d": _half(0), "m": _half(2), "codes": Field(32, _nibbles(8) + _fifth_bits(4))},
    ),
    # d, qs[32]
    "Q8_0": BlockLayout(
        32, 34, {"d": _half(0), "codes": Field(32, ((0, 1, 2, 32, 0, 255, 0),), 128, 128)}
    ),
    # scales[16], qs[64], d, dmin
    "Q2_K": BlockLayout(
        256,
        84,
        {
            "scales": Field(16, ((0, 1, 0, 16, 0, 15, 0),)),
            "mins": Field(16, ((0, 1, 0, 16, 0, 15, 4),)),
            "codes": Field(256, _quarters(16, 0, 2)),
            "d": _half(80),
            "dmin": _half(82),
        },
    ),
    # hmask[32], qs[64], scales[12], d
    "Q3_K": BlockLayout(
        256,
        110,
        {
            "codes": Field(256, _planes(0, 2) + _quarters(32, 0, 2), zero=4),
            "scales": Field(16, _Q3_SCALES, zero=32),
            "d": _half(108),
        },
    ),
    # d, dmin, scales[12], qs[128]
    "Q4_K": BlockLayout(
        256,
        144,
        {
            "d": _half(0),
            "dmin": _half(2),
            "scales": Field(8, _six_bits(4, 0)),
            "mins": Field(8, _six_bits(4, 1)),
            "codes": Field(256, _pairs(16)),
        },
    ),
    # d, dmin, scales[12], qh[32], qs[128]
    "Q5_K": BlockLayout(
        256,
        176,
        {
            "d": _half(0),
            "dmin": _half(2),
            "scales": Field(8, _six_bits(4, 0)),
            "mins": Field(8, _six_bits(4, 1)),
            "codes": Field(256, _planes(16, 4) + _pairs(48)),
        },
    ),
    # ql[128], qh[64], scales[16], d
    "Q6_K": BlockLayout(
        256,
        210,
        {
            "codes": Field(256, _Q6_LOW + _quarters(128, 4, 2), zero=32),
            "scales": Field(16, ((0, 1, 192, 16, 0, 255, 0),), 128, 128),
            "d": _half(208),
        },
    ),
}


@kernel()
def place_run(
    values: Codes,
    count: int,
    shift: tuple[int, int],
    run: BitRun,
    blocks: npt.NDArray[np.uint8],
) -> None:
    """Add one run of bits of flat `values`, `count` a block, to `blocks` (blocks, bytes)."""
    zero, flip = np.int16(shift[0]), np.int16(shift[1])
    first, step, to, length, right, mask, left = run
    if step == 1 and length % 16 == 0:
        for block in range(blocks.shape[0]):
            source = values[block * count + first : (block + 1) * count]
            target = blocks[block, to:]
            for part in range(length // 16):
                for i in range(16):
                    at = part * 16 + i
                    value = (np.int16(source[at] + zero) ^ flip) >> np.int16(right)
                    target[at] |= np.uint8((value & np.int16(mask)) << np.int16(left))
    else:
        for i in range(length):
            spread = values[first + step * i :]
            for block in range(blocks.shape[0]):
                number = ((np.int32(spread[block * count]) + zero) ^ flip) >> right
                blocks[block, to + i] |= np.uint8((number & mask) << left)


@kernel()
def place(
    values: Codes,
    count: int,
    shift: tuple[int, int],
    runs: npt.NDArray[np.int32],
    blocks: npt.NDArray[np.uint8],
) -> None:
    """Add a field of flat `values`, `count` a block, to the zeroed `blocks` (blocks, bytes)."""
    for k in range(runs.shape[0]):
        first, step, to, length, right, mask, left = runs[k]
        place_run(values, count, shift, (first, step, to, length, right, mask, left), blocks)


@kernel()
def collect_run(blocks: npt.NDArray[np.uint8], run: BitRun, count: int, values: Codes) -> None:
    """Add one run of bits of `blocks` (blocks, bytes) to flat `values`, `count` a block."""
    first, step, to, length, right, mask, left = run
    if step == 1 and length % 16 == 0:
        for block in range(blocks.shape[0]):
            source = blocks[block, to:]
            target = values[block * count + first : (block + 1) * count]
            for part in range(length // 16):
                for i in range(16):
                    at = part * 16 + i
                    bits = (np.int16(source[at]) >> np.int16(left)) & np.int16(mask)
                    target[at] |= bits << np.int16(right)
    else:
        for i in range(length):
            spread = values[first + step * i :]
            for block in range(blocks.shape[0]):
                number = (np.int32(blocks[block, to + i]) >> left) & mask
                spread[block * count] |= np.int16(number << right)


@kernel()
def collect(
    blocks: npt.NDArray[np.uint8],
    runs: npt.NDArray[np.int32],
    count: int,
    shift: tuple[int, int],
    values: Codes,
) -> None:
    """The inverse of `place`: fill flat `values`."""
    zero, flip = np.int16(shift[0]), np.int16(shift[1])
    values[:] = np.int16(0)
    for k in range(runs.shape[0]):
        first, step, to, length, right, mask, left = runs[k]
        collect_run(blocks, (first, step, to, length, right, mask, left), count, values)
    for i in range(values.size):
        values[i] = np.int16(values[i] ^ flip) - zero


def pack_blocks(layout: BlockLayout, rows: int, fields: dict[str, Codes]) -> npt.NDArray[np.uint8]:
    """The bytes (rows, bytes a row) of fields of shape (rows, blocks * count)."""
    blocks = next(fields[name].shape[1] // field.count for name, field in layout.fields.items())
    data = np.zeros((rows, blocks * layout.nbytes), np.uint8)
    for name, field in layout.fields.items():
        values = np.ascontiguousarray(fields[name]).reshape(-1)
        shift = (field.zero, field.flip)
        place(values, field.count, shift, field.table(), data.reshape(-1, layout.nbytes))
    return data


def unpack_blocks(layout: BlockLayout, data: npt.NDArray[np.uint8]) -> dict[str, Codes]:
    """The fields (rows, blocks * count) in bytes of shape (rows, bytes a row)."""
    rows, width = data.shape
    blocks = np.ascontiguousarray(data).reshape(-1, layout.nbytes)
    fields: dict[str, Codes] = {}
    for name, field in layout.fields.items():
        values = np.empty((rows, width // layout.nbytes * field.count), np.int16)
        shift = (field.zero, field.flip)
        collect(blocks, field.table(), field.count, shift, values.reshape(-1))
        fields[name] = values
    return fields
