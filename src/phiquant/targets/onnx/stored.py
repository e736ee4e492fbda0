"""Matrices as graphs hold them, decoded to the floats that the runtime computes with.

MatMulNBits, GatherBlockQuantized   (out, blocks, bytes)       NbitsMatrix
DequantizeLinear                    (out, in) or (in, out)     BlockMatrix
MatMul, Gather                      (in, out) or (out, in)     FloatMatrix
several of one kind, stacked        q, k, v; gate, up          Stacked
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from phiquant.errors import ArtifactError
from phiquant.phi.weights import rows_from
from phiquant.quantization.grid import Floats
from phiquant.targets.onnx.grids import unpack_codes
from phiquant.targets.onnx.model_file import WIDTHS, ModelFile, extents

FLOAT_NAMES = {ir.DataType.FLOAT: "F32", ir.DataType.FLOAT16: "F16"}


class Matrix(Protocol):
    """One weight of the network."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (in,) for gains."""

    @property
    def type(self) -> str:
        """What it is stored as ("int4-b32 F32")."""

    @property
    def tensors(self) -> tuple[ir.TensorProtocol, ...]:
        """The stored tensors."""

    def rows(self, first: int, last: int | None) -> Floats:
        """The rows, decoded."""


@dataclass(frozen=True, slots=True)
class FloatMatrix:
    """Floats, (in, out) if `transposed`."""

    file: ModelFile
    tensor: ir.TensorProtocol
    transposed: bool

    def __post_init__(self) -> None:
        if self.tensor.dtype not in FLOAT_NAMES or len(self.tensor.shape) not in (1, 2):
            raise ArtifactError(
                f"{self.tensor.name} has {self.tensor.dtype.name} elements and shape "
                f"{list(self.tensor.shape)}; expected a matrix of FLOAT or FLOAT16"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in), or (in,)."""
        shape = extents(self.tensor)
        return shape[::-1] if self.transposed else shape

    @property
    def type(self) -> str:
        """The element type."""
        return FLOAT_NAMES[self.tensor.dtype]

    @property
    def tensors(self) -> tuple[ir.TensorProtocol, ...]:
        """The one tensor."""
        return (self.tensor,)

    def rows(self, first: int, last: int | None) -> Floats:
        """The rows, widened."""
        shape = extents(self.tensor)
        if self.transposed:
            band = self.file.columns(self.tensor, shape[0], first, last).T
        else:
            band = self.file.rows(self.tensor, shape[0], first, last).reshape(-1, *shape[1:])
        return np.ascontiguousarray(band, np.float32)


@dataclass(frozen=True, slots=True)
class NbitsMatrix:
    """Blocks as MatMulNBits takes them; rows may be padded to whole blocks."""

    file: ModelFile
    parts: tuple[ir.TensorProtocol, ...]
    """Codes, scales and, unless symmetric, zero points."""
    shape: tuple[int, ...]
    bits: int
    block: int

    @property
    def type(self) -> str:
        """Bits, block, symmetry and the scales' type."""
        symmetric = "-sym" if len(self.parts) == 2 else ""
        scales = FLOAT_NAMES.get(self.parts[1].dtype, self.parts[1].dtype.name)
        return f"int{self.bits}-b{self.block}{symmetric} {scales}"

    @property
    def tensors(self) -> tuple[ir.TensorProtocol, ...]:
        """The stored parts."""
        return self.parts

    def rows(self, first: int, last: int | None) -> Floats:
        """The rows, dequantized."""
        rows, columns = self.shape
        blocks = -(-columns // self.block)
        packed, scales, *zeros = (self.file.rows(part, rows, first, last) for part in self.parts)
        codes = unpack_codes(packed, self.bits, blocks * self.block)
        weights = codes.astype(np.float32).reshape(len(codes), blocks, self.block)
        if zeros and zeros[0].dtype == np.uint8:
            weights -= unpack_codes(zeros[0], self.bits, blocks)[..., None].astype(np.float32)
        elif zeros:
            weights -= zeros[0].astype(np.float32)[..., None]
        else:
            weights -= np.float32(1 << (self.bits - 1))
        weights *= scales.astype(np.float32)[..., None]
        decoded: Floats = weights.reshape(len(codes), blocks * self.block)[:, :columns]
        return decoded


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """Elements as DequantizeLinear takes them, (in, out) if `transposed`."""

    file: ModelFile
    parts: tuple[ir.TensorProtocol, ...]
    """Codes, scales and perhaps zero points, of one rank."""
    transposed: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return self._shape(self.parts[0])

    @property
    def type(self) -> str:
        """Bits, block, symmetry and the scales' type."""
        symmetric = "-sym" if len(self.parts) == 2 else ""
        scales = FLOAT_NAMES.get(self.parts[1].dtype, self.parts[1].dtype.name)
        return f"int{WIDTHS[self.parts[0].dtype]}-b{self._block()}{symmetric} {scales}"

    @property
    def tensors(self) -> tuple[ir.TensorProtocol, ...]:
        """The stored parts."""
        return self.parts

    def rows(self, first: int, last: int | None) -> Floats:
        """The rows, dequantized."""
        codes, scales, *zeros = (self._elements(part, first, last) for part in self.parts)
        weights = codes.reshape(*scales.shape, self._block())
        if zeros:
            weights = weights - zeros[0][..., None]
        decoded: Floats = (weights * scales[..., None]).reshape(codes.shape)
        return decoded

    def _block(self) -> int:
        return self.shape[1] // self._shape(self.parts[1])[1]

    def _shape(self, part: ir.TensorProtocol) -> tuple[int, ...]:
        rows, columns = extents(part)
        return (columns, rows) if self.transposed else (rows, columns)

    def _elements(self, part: ir.TensorProtocol, first: int, last: int | None) -> Floats:
        """Rows of a part as float32, one element a code."""
        outer, inner = extents(part)
        if WIDTHS[part.dtype] != 4:
            if self.transposed:
                band = self.file.columns(part, outer, first, last).T
            else:
                band = self.file.rows(part, outer, first, last)
            return np.ascontiguousarray(band, np.float32)
        if inner % 2:
            raise ArtifactError(f"{part.name} has an odd number of 4-bit elements in a row")
        if not self.transposed:
            packed = self.file.rows(part, outer, first, last)
            return _signed(unpack_codes(packed, 4, inner), part.dtype)
        stop = inner if last is None else min(last, inner)
        pairs = self.file.columns(part, outer, first // 2, (stop + 1) // 2)
        columns = unpack_codes(pairs, 4, stop - first // 2 * 2)
        return _signed(np.ascontiguousarray(columns[:, first % 2 :].T), part.dtype)


def _signed(codes: npt.NDArray[np.int16], dtype: ir.DataType) -> Floats:
    if dtype is ir.DataType.INT4:
        codes = (codes ^ 8) - 8
    return codes.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Matrices one above the other, as the checkpoint has them in one."""

    matrices: Sequence[Matrix]

    @property
    def shape(self) -> tuple[int, ...]:
        """(out, in)."""
        return (sum(matrix.shape[0] for matrix in self.matrices), self.matrices[0].shape[1])

    @property
    def type(self) -> str:
        """Of the first."""
        return self.matrices[0].type

    @property
    def tensors(self) -> tuple[ir.TensorProtocol, ...]:
        """Of all."""
        return tuple(tensor for matrix in self.matrices for tensor in matrix.tensors)

    def rows(self, first: int, last: int | None) -> Floats:
        """The rows, from whichever matrices hold them."""
        counts = [matrix.shape[0] for matrix in self.matrices]
        pieces = [
            self.matrices[number].rows(low, high)
            for number, low, high in rows_from(counts, first, last)
        ]
        return np.concatenate(pieces) if pieces else np.empty((0, self.shape[1]), np.float32)
