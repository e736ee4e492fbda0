"""4-bit integers as ONNX and OpenVINO store them: two a byte, the first in the lower half.

A tensor is one run of nibbles in row-major order, without padding between rows.
"""

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.grid import Codes

Bytes = npt.NDArray[np.uint8]


@kernel()
def pack_kernel(codes: Codes, packed: Bytes) -> None:
    """Fill `packed` with the lower four bits of flat `codes`, an even number."""
    for i in range(packed.size):
        packed[i] = np.uint8((codes[2 * i] & 15) | ((codes[2 * i + 1] & 15) << 4))


@kernel()
def unpack_kernel(packed: Bytes, signed: bool, codes: Codes) -> None:
    """The inverse of `pack_kernel`; `signed` values are in two's complement."""
    flip = np.int16(8) if signed else np.int16(0)
    for i in range(packed.size):
        codes[2 * i] = np.int16((np.int16(packed[i] & 15) ^ flip) - flip)
        codes[2 * i + 1] = np.int16((np.int16(packed[i] >> 4) ^ flip) - flip)


def pack(codes: Codes) -> Bytes:
    """Bytes (rows, columns / 2) of codes (rows, columns)."""
    packed = np.empty((codes.shape[0], codes.shape[1] // 2), np.uint8)
    pack_kernel(np.ascontiguousarray(codes).reshape(-1), packed.reshape(-1))
    return packed


def unpack(packed: Bytes, signed: bool) -> Codes:
    """The inverse of `pack`."""
    codes = np.empty((packed.shape[0], packed.shape[1] * 2), np.int16)
    unpack_kernel(np.ascontiguousarray(packed).reshape(-1), signed, codes.reshape(-1))
    return codes


def pack_run(values: Bytes) -> Bytes:
    """A whole array of unsigned 4-bit values as one run of bytes; an odd last one is padded."""
    flat = values.reshape(-1).astype(np.int16)
    packed: Bytes = pack(np.append(flat, np.zeros(flat.size % 2, np.int16))[None])[0]
    return packed


def unpack_run(packed: Bytes, count: int) -> Bytes:
    """The inverse of `pack_run` for `count` values."""
    values: Bytes = unpack(packed[None], False)[0, :count].astype(np.uint8)
    return values
