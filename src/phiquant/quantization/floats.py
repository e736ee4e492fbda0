"""Float types as grids of parameters: exact conversions between float32, float16 and bfloat16.

numpy has no bfloat16, and its float16 cast is slow and warns instead of failing. Here a BF16
array is a uint16 array of the upper halves of float32 bit patterns. All conversions round to
nearest, ties to even (IEEE 754), as the runtimes do.

The scalar functions with a leading `lane_` or `bits_` are inlined into other kernels.
"""
# ruff: noqa: ANN401 (numba's code generators are untyped)

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]

from phiquant.host.kernel import intrinsic, kernel, njit, types
from phiquant.quantization.grid import Floats

FloatName = Literal["F32", "F16", "BF16"]


@dataclass(frozen=True, slots=True)
class FloatType:
    """A float type in which parameters are stored, with the numbers that rounding to it needs."""

    name: FloatName
    stored: np.dtype[np.generic]
    """The dtype of its arrays in numpy: BF16 is held as uint16 bit patterns."""
    largest: float
    """The greatest finite value."""
    magic: float
    """`(v + p * magic) - p * magic` rounds v in [p, 2p), p a power of two, to the type."""
    smallest_normal: float


FLOAT_TYPES: dict[str, FloatType] = {
    "F32": FloatType("F32", np.dtype(np.float32), 3.4028234663852886e38, 0.0, 2.0**-126),
    "F16": FloatType("F16", np.dtype(np.float16), 65504.0, 1.5 * 2.0**13, 2.0**-14),
    "BF16": FloatType("BF16", np.dtype(np.uint16), 3.3895313892515355e38, 1.5 * 2.0**16, 2.0**-126),
}


@intrinsic
def float_bits(_context: Any, _value: Any) -> Any:
    """The bit pattern of a float32 as an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def bits_float(_context: Any, _value: Any) -> Any:
    """The float32 with the bit pattern of an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(inline="always", error_model="numpy")
def bits_float16(value: np.float32) -> np.int32:
    """The 16 bits of the float16 nearest to a float32; beyond its range, an infinity."""
    bits = float_bits(value)
    sign = (bits >> np.int32(16)) & np.int32(0x8000)
    size = bits & np.int32(0x7FFFFFFF)
    # Adding 1/2, whose last place is 2**-24, rounds to a multiple of the least subnormal.
    small = float_bits(bits_float(size) + np.float32(0.5)) - np.int32(0x3F000000)
    even = (size >> np.int32(13)) & np.int32(1)
    normal = (size + even + np.int32(0xFFF) - np.int32(112 << 23)) >> np.int32(13)
    half = small if size < np.int32(0x38800000) else normal
    half = np.int32(0x7C00) if size >= np.int32(0x477FF000) else half
    return np.int32(sign | half)


@njit(inline="always", error_model="numpy")
def float16_value(half: np.int32) -> np.float32:
    """The float32 that equals a float16 given by its 16 bits."""
    size = half & np.int32(0x7FFF)
    # 2**112 makes up for the difference of the exponents' biases, exactly, subnormals included.
    value = bits_float(size << np.int32(13)) * np.float32(2.0**112)
    wide = (size << np.int32(13)) + np.int32(224 << 23)  # infinities and NaN
    bits = wide if size >= np.int32(0x7C00) else float_bits(value)
    return np.float32(bits_float(bits | ((half & np.int32(0x8000)) << np.int32(16))))


@njit(inline="always", error_model="numpy")
def bits_bfloat16(value: np.float32) -> np.int32:
    """The 16 bits of the bfloat16 nearest to a float32; beyond its range, an infinity."""
    bits = float_bits(value)
    even = (bits >> np.int32(16)) & np.int32(1)
    return np.int32(((bits + np.int32(0x7FFF) + even) >> np.int32(16)) & np.int32(0xFFFF))


@kernel(error_model="numpy")
def narrow(values: Floats, brain: bool, stored: npt.NDArray[np.uint16]) -> np.int32:
    """Fill `stored` with `values` as bfloat16 (`brain`) or float16.

    Returns the greatest bits without sign.
    """
    most = np.int32(0)
    if brain:
        for i in range(values.size):
            bits = bits_bfloat16(values[i])
            stored[i] = bits
            most = max(most, bits & np.int32(0x7FFF))
    else:
        for i in range(values.size):
            bits = bits_float16(values[i])
            stored[i] = bits
            most = max(most, bits & np.int32(0x7FFF))
    return most


@kernel(error_model="numpy")
def widen_kernel(stored: npt.NDArray[np.uint16], brain: bool, values: Floats) -> None:
    """The inverse of `narrow`, exact."""
    if brain:
        for i in range(values.size):
            values[i] = bits_float(np.int32(stored[i]) << np.int32(16))
    else:
        for i in range(values.size):
            values[i] = float16_value(np.int32(stored[i]))


@kernel(error_model="numpy")
def greatest_bits(values: Floats) -> np.int32:
    """The greatest bit pattern without sign: above 0x7F7FFFFF, a value is not finite."""
    most = np.int32(0)
    for i in range(values.size):
        # numba would otherwise go on in 64 bits, with half as many to a vector.
        most = max(most, np.int32(float_bits(values[i]) & np.int32(0x7FFFFFFF)))
    return most


def largest_magnitude(weights: Floats) -> float:
    """Greatest |w|; ValueError if a weight is not finite."""
    bits = greatest_bits(weights.reshape(-1))
    if bits > 0x7F7FFFFF:
        raise ValueError(
            "Expected finite weights, got NaN or an infinity: the tensor cannot be quantized; "
            "repair it in the checkpoint."
        )
    return float(np.int32(bits).view(np.float32))


def cast(values: Floats, kind: FloatType) -> npt.NDArray[np.generic]:
    """`values` as `kind` stores them; ValueError if one is not finite or becomes infinite."""
    if kind.name == "F32":
        largest_magnitude(values)
        return values.astype(np.float32)
    stored = np.empty(values.shape, np.uint16)
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    infinity = 0x7F80 if kind.name == "BF16" else 0x7C00
    if narrow(flat, kind.name == "BF16", stored.reshape(-1)) >= infinity:
        most = largest_magnitude(values)
        raise ValueError(
            f"{kind.name} holds magnitudes up to {kind.largest:.6g}, got {most:.6g}: "
            "store this tensor as F32 instead."
        )
    return stored.view(kind.stored)


def widen(stored: npt.NDArray[np.generic], kind: FloatType) -> Floats:
    """The float32 values of an array as `cast` returns it."""
    if kind.name == "F32":
        return np.array(stored, np.float32)
    values = np.empty(stored.shape, np.float32)
    bits = np.ascontiguousarray(stored).view(np.uint16).reshape(-1)
    widen_kernel(bits, kind.name == "BF16", values.reshape(-1))
    return values


def nearest(values: Floats, kind: FloatType) -> Floats:
    """The nearest values to `values` that `kind` can store; beyond its range, its largest."""
    limit = np.float32(kind.largest)
    return widen(cast(np.clip(values, -limit, limit), kind), kind)
