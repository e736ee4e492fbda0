"""Kernels over raw BF16, FP16 and FP32 bits: widening to float32, and the largest magnitude.

For all three formats the bits without the sign, read as an integer, order like the magnitudes,
and infinities and NaNs come last. So one integer maximum tells the largest value and whether
every value is finite. The kernels run on one core without the interpreter's lock; the callers
spread them.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.phi.safetensors_file import RAW_DTYPES

EXPONENT_MASK = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
"""The least magnitude bits that are not finite."""
WEIGHT_DTYPES = tuple(EXPONENT_MASK)
"""The element types that weights may be stored in."""


@kernel()
def _widen_bf16(bits: npt.NDArray[np.uint16], out: npt.NDArray[np.uint32]) -> None:
    for i in range(bits.size):
        out[i] = np.uint32(bits[i]) << np.uint32(16)


@kernel()
def _largest_bits(bits: npt.NDArray[Any], mask: Any) -> Any:  # noqa: ANN401
    largest = bits.dtype.type(0)
    for i in range(bits.size):
        largest = max(largest, bits.dtype.type(bits[i] & mask))
    return largest


def widen(raw: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    """The float32 values of `raw`, an array viewed as `RAW_DTYPES[dtype]`; any shape."""
    if dtype != "BF16":
        return raw.astype(np.float32, order="C")
    out = np.empty(raw.shape, np.uint32)
    _widen_bf16(np.ascontiguousarray(raw).reshape(-1), out.reshape(-1))
    return out.view(np.float32)


def largest_stored_magnitude(raw: npt.NDArray[np.generic], dtype: str) -> float:
    """The largest absolute value of a non-empty `raw`; infinity if any value is not finite."""
    unsigned = np.dtype(f"<u{RAW_DTYPES[dtype].itemsize}")
    bits = raw.reshape(-1).view(unsigned)
    mask = unsigned.type(np.iinfo(unsigned).max >> 1)
    largest = unsigned.type(_largest_bits(bits, mask))
    if largest >= EXPONENT_MASK[dtype]:
        return float("inf")
    return float(widen(np.array([largest]).view(RAW_DTYPES[dtype]), dtype)[0])
