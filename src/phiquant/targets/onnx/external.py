"""Where every tensor lies in `model.onnx.data`, known before the first byte.

Tensors follow one another in plan order; large ones begin at a multiple of the page size, so that
runtimes map them. Matrices of plain MatMul and of DequantizeLinear are stored transposed, (in,
out), as those operators take them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

FILE = "model.onnx.data"
PAGE = 4096
LARGE = 1 << 16
SMALL_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the external data: its element type, shape and place."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    transposed: bool = False
    """Whether the axes are (in, out)."""

    def tensor(self, shape: tuple[int, ...] | None = None) -> ir.ExternalTensor:
        """A reference to the data, which is not touched; `shape` may be another of that size."""
        return ir.ExternalTensor(
            FILE, self.offset, self.nbytes, self.dtype, shape=ir.Shape(shape or self.shape),
            name=self.name,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor that wants a place."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    transposed: bool = False


def arrange(wanted: Sequence[StoredTensor]) -> tuple[dict[str, Entry], int]:
    """A place for each tensor, and the size of the file."""
    entries = {}
    end = 0
    for tensor in wanted:
        bits = tensor.dtype.bitwidth
        nbytes = (int(np.prod(tensor.shape, dtype=np.int64)) * bits + 7) // 8
        alignment = PAGE if nbytes >= LARGE else SMALL_ALIGNMENT
        offset = -(-end // alignment) * alignment
        entries[tensor.name] = Entry(
            tensor.name, tensor.dtype, tensor.shape, offset, nbytes, tensor.transposed
        )
        end = offset + nbytes
    return entries, end
