"""Affine rounding given its levels: weights to the nearest codes, and codes back to floats."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.host.kernel import kernel
from phiquant.quantization.bands import in_bands
from phiquant.quantization.floats import (
    FloatType,
    bits_bfloat16,
    bits_float,
    bits_float16,
    float16_value,
    largest_magnitude,
)
from phiquant.quantization.grid import AffineGrid, Codes, Floats, Levels

Real = np.float32

RoundTo = {"F32": 0, "F16": 1, "BF16": 2}


@kernel(error_model="numpy")
def nearest_kernel(
    weights: Floats, scale: Floats, offset: Floats, ends: tuple[Real, Real], codes: Codes
) -> None:
    """Fill flat `codes` with the nearest codes; `ends` are the least and the greatest of them."""
    size = weights.size // scale.size
    low, high = ends
    for group in range(scale.size):
        group_weights = weights[group * size : (group + 1) * size]
        group_codes = codes[group * size : (group + 1) * size]
        step = scale[group]
        base = offset[group]
        if abs(step) > np.float32(1e-37):
            inverse = np.float32(1) / step
            for i in range(size):
                q = np.rint((group_weights[i] - base) * inverse)
                group_codes[i] = np.int32(min(max(q, low), high))
        else:  # The inverse would overflow, or the scale is 0 and all codes are alike.
            step = step if step != 0 else np.float32(1)
            for i in range(size):
                q = np.rint((group_weights[i] - base) / step)
                group_codes[i] = np.int32(min(max(q, low), high))


@kernel(error_model="numpy")
def decode_kernel(codes: Codes, scale: Floats, offset: Floats, kind: int, weights: Floats) -> None:
    """Fill flat `weights` with scale * code + offset.

    Product and sum are each rounded to float32 (`kind` 0), float16 (1) or bfloat16 (2).
    """
    size = codes.size // scale.size
    for group in range(scale.size):
        group_codes = codes[group * size : (group + 1) * size]
        group_weights = weights[group * size : (group + 1) * size]
        step = scale[group]
        base = offset[group]
        if kind == 0:
            for i in range(size):
                group_weights[i] = np.float32(group_codes[i]) * step + base
        elif kind == 1:
            for i in range(size):
                product = float16_value(bits_float16(np.float32(group_codes[i]) * step))
                group_weights[i] = float16_value(bits_float16(product + base))
        else:
            for i in range(size):
                product = bits_bfloat16(np.float32(group_codes[i]) * step) << np.int32(16)
                total = bits_float(product) + base
                group_weights[i] = bits_float(bits_bfloat16(total) << np.int32(16))


def nearest_codes(weights: Floats, levels: Levels, grid: AffineGrid) -> Codes:
    """The code of the nearest level of every weight (rows, columns), ties to even."""
    codes = np.empty(weights.shape, np.int16)
    low, high = grid.code_range

    def work(first: int, last: int) -> None:
        nearest_kernel(
            np.ascontiguousarray(weights[first:last], np.float32).reshape(-1),
            np.ascontiguousarray(levels.scale[first:last]).reshape(-1),
            np.ascontiguousarray(levels.offset[first:last]).reshape(-1),
            (np.float32(low), np.float32(high)),
            codes[first:last].reshape(-1),
        )

    in_bands(weights.shape[0], weights.shape[1], work)
    return codes


def decode_codes(codes: Codes, levels: Levels, kind: FloatType) -> Floats:
    """The weights (rows, columns) behind `codes`, computed in `kind` as the runtime does."""
    weights = np.empty(codes.shape, np.float32)

    def work(first: int, last: int) -> None:
        decode_kernel(
            np.ascontiguousarray(codes[first:last]).reshape(-1),
            np.ascontiguousarray(levels.scale[first:last]).reshape(-1),
            np.ascontiguousarray(levels.offset[first:last]).reshape(-1),
            RoundTo[kind.name],
            weights[first:last].reshape(-1),
        )

    in_bands(codes.shape[0], codes.shape[1], work)
    return weights


def encode_nearest(
    grid: AffineGrid, weights: Floats, importance: Floats | None
) -> dict[str, npt.NDArray[np.generic]]:
    """Fit, round to the nearest levels and pack `weights` (rows, columns)."""

    def codes_of(band: Floats, levels: Levels) -> Codes:
        return nearest_codes(band, levels, grid)

    return encode_with(grid, weights, importance, codes_of)


def encode_with(
    grid: AffineGrid,
    weights: Floats,
    importance: Floats | None,
    codes_of: Callable[[Floats, Levels], Codes],
) -> dict[str, npt.NDArray[np.generic]]:
    """Fit, round by `codes_of` and pack `weights` (rows, columns) band by band."""
    parts: dict[str, npt.NDArray[Any]] = {
        name: np.empty(part.shape, part.dtype) for name, part in grid.layout(weights.shape).items()
    }

    def work(first: int, last: int) -> None:
        band = np.ascontiguousarray(weights[first:last], np.float32)
        levels = grid.fit(band, importance)
        packed = grid.pack(codes_of(band, levels), levels)
        for name, part in packed.items():
            parts[name][first:last] = part

    in_bands(weights.shape[0], weights.shape[1], work)
    return parts


def check_weights(weights: Floats, block: int, limit: float, name: str) -> None:
    """ValueError unless `weights` is (rows, whole blocks), finite and within `limit`."""
    if weights.ndim != 2 or weights.shape[1] % block or not weights.size:
        raise ValueError(
            f"{name} stores rows of whole blocks of {block} weights, got an array of shape "
            f"{weights.shape}: choose a grid whose block divides the row length."
        )
    most = largest_magnitude(weights)
    if most > limit:
        raise ValueError(
            f"{name} holds magnitudes up to {limit:.6g}, got {most:.6g}: "
            "store this tensor as BF16 or F32 instead."
        )


def check_importance(importance: Floats | None, columns: int) -> Floats:
    """`importance` scaled to [1e-6, 1] for the kernels; an empty array for None.

    Only the ratios of importances matter. With the floor of 1e-6 the search still has something to
    go by where a whole group has no importance.
    """
    if importance is None:
        return np.empty(0, np.float32)
    if importance.shape != (columns,) or not np.isfinite(importance).all() or importance.min() < 0:
        raise ValueError(
            f"Expected {columns} finite importances of at least 0, one a column, got "
            f"{importance.shape} with a least value of {importance.min():.6g}."
        )
    most = float(importance.max())
    if most == 0:
        return np.empty(0, np.float32)
    return np.maximum(importance.astype(np.float64) / most, 1e-6).astype(np.float32)
