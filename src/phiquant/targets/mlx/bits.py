"""MLX's packed words: the codes of a row as one stream of bits, lowest first.

Code k lies at bits [k * bits, (k + 1) * bits) of the row, counted from the lowest bit of its
first 32-bit word; with 3, 5 and 6 bits a code may straddle two words. 32 codes fill `bits`
words exactly, so groups of 32 and more never share a word.
"""

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.grid import Codes


@kernel()
def pack_kernel(codes: Codes, bits: int, words: npt.NDArray[np.uint32]) -> None:
    """Fill `words` with flat `codes`, a multiple of 32."""
    if bits == 4:
        for at in range(words.size):
            here = codes[8 * at : 8 * at + 8]
            word = np.uint32(0)
            for i in range(8):
                word |= np.uint32(here[i]) << np.uint32(4 * i)
            words[at] = word
        return
    if bits == 8:
        for at in range(words.size):
            here = codes[4 * at : 4 * at + 4]
            word = np.uint32(0)
            for i in range(4):
                word |= np.uint32(here[i]) << np.uint32(8 * i)
            words[at] = word
        return
    held = np.uint64(0)
    count = 0
    at = 0
    for i in range(codes.size):
        held |= np.uint64(codes[i]) << np.uint64(count)
        count += bits
        if count >= 32:
            words[at] = np.uint32(held & np.uint64(0xFFFFFFFF))
            held >>= np.uint64(32)
            count -= 32
            at += 1


@kernel()
def unpack_kernel(words: npt.NDArray[np.uint32], bits: int, codes: Codes) -> None:
    """The inverse of `pack_kernel`."""
    mask = np.uint64((1 << bits) - 1)
    held = np.uint64(0)
    count = 0
    at = 0
    for i in range(codes.size):
        if count < bits:
            held |= np.uint64(words[at]) << np.uint64(count)
            count += 32
            at += 1
        codes[i] = np.int16(held & mask)
        held >>= np.uint64(bits)
        count -= bits


def pack_bits(codes: Codes, bits: int) -> npt.NDArray[np.uint32]:
    """Words (rows, columns * bits / 32) of codes (rows, columns)."""
    words = np.empty((codes.shape[0], codes.shape[1] * bits // 32), np.uint32)
    pack_kernel(np.ascontiguousarray(codes).reshape(-1), bits, words.reshape(-1))
    return words


def unpack_bits(words: npt.NDArray[np.uint32], bits: int) -> Codes:
    """The inverse of `pack_bits`."""
    codes = np.empty((words.shape[0], words.shape[1] * 32 // bits), np.int16)
    unpack_kernel(np.ascontiguousarray(words).reshape(-1), bits, codes.reshape(-1))
    return codes
