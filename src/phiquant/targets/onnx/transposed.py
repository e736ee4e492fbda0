"""Bands of rows of a matrix that is stored as (in, out): a band is a band of columns there.

The columns of a band lie apart, so they are written through a mapping of the file. With 4 bits
two columns share a byte, low nibble first, and may come in different bands: bytes are or-ed
into the file, which is zero before. The number of columns is even then (see `layout`).
"""

import numpy as np
import numpy.typing as npt

from phiquant.targets.onnx.external import Entry
from phiquant.targets.onnx.grids import pack_codes


class MappedFile:
    """A file of its final size, whose bytes are mapped for writing."""

    def __init__(self, mapped: np.memmap[tuple[int], np.dtype[np.uint8]]) -> None:
        self._bytes = mapped

    def put(self, entry: Entry, first: int, elements: npt.NDArray[np.generic]) -> None:
        """Write `elements` (rows, in), the matrix's rows from `first` on."""
        held = self._bytes[entry.offset : entry.offset + entry.nbytes]
        inner, outer = entry.shape
        last = first + len(elements)
        if entry.dtype.bitwidth == 4:
            _or_nibbles(held.reshape(inner, outer // 2), first, elements.astype(np.int16) & 15)
        else:
            held.view(elements.dtype).reshape(inner, outer)[:, first:last] = elements.T

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._bytes.flush()


def _or_nibbles(held: npt.NDArray[np.uint8], first: int, codes: npt.NDArray[np.int16]) -> None:
    columns = np.pad(codes.T, ((0, 0), (first % 2, 0)))
    packed = pack_codes(columns, 4)
    held[:, first // 2 : first // 2 + packed.shape[1]] |= packed
