"""A linear layer's weight on a grid, rounded against the moments of the layer's inputs.

    correct    the weight that makes best good, in the least squares, for inputs that the layers
               before have shifted: W + s W C (H + λ)⁻¹ with C = E[(x' - x) xᵀ], where x' are the
               original's inputs (GPTAQ, https://arxiv.org/abs/2504.02692, and Qronos,
               https://arxiv.org/abs/2505.11695, aim at the same minimum). `strength` s goes from
               0, not at all, to 1.
    round      codes with feedback (`feedback.py`)
    improve    codes and parameters in turn (`descent.py`)

Rows are independent: bands of them go over the cores.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.phi.threads import for_each
from phiquant.quantization.descent import damped, errors_of, improve_codes, improve_parameters
from phiquant.quantization.feedback import Feedback, round_with_feedback
from phiquant.quantization.grid import AffineGrid, Floats, Parts

ROWS = 256
"""Rows that one core rounds at a time."""


@dataclass(frozen=True, slots=True)
class Method:
    """How weights are rounded; every part can be switched off."""

    damping: float = 0.03
    """Share of the mean second moment that is added to each: see `Feedback.of`."""
    shift: float = 0.0
    """Strength of the correction for shifted inputs."""
    sweeps: int = 1
    """How often codes and parameters are improved after the rounding."""
    codes: bool = True
    parameters: bool = True


def corrected(weight: Floats, moment: Floats, shift: Floats, strength: float) -> Floats:
    """`weight` (rows, n) for shifted inputs; moment and shift are (n, n), the moment damped."""
    answer = np.linalg.solve(moment.astype(np.float64), shift.T.astype(np.float64))
    found: Floats = weight + np.float32(strength) * (weight @ answer.T.astype(np.float32))
    return found


def round_calibrated(
    weight: Floats, moment: Floats, shift: Floats | None, grid: AffineGrid, method: Method
) -> Parts:
    """The stored parts of `weight` (rows, n) on `grid`, for inputs of second moment (n, n)."""
    stiff = damped(moment, method.damping)
    if shift is not None and method.shift:
        weight = corrected(weight, stiff, shift, method.shift)
    feedback = Feedback.of(moment, grid.block, method.damping)
    parts: dict[str, npt.NDArray[Any]] = {
        name: np.empty(part.shape, part.dtype) for name, part in grid.layout(weight.shape).items()
    }

    def work(first: int) -> None:
        band = weight[first : first + ROWS]
        codes, levels = round_with_feedback(band, feedback, grid)
        if method.sweeps:
            errors = errors_of(band, codes, levels)
            for _ in range(method.sweeps):
                if method.codes:
                    improve_codes(codes, errors, levels, stiff, grid)
                if method.parameters:
                    levels = improve_parameters(codes, errors, levels, stiff, grid)
        for name, part in grid.pack(codes, levels).items():
            parts[name][first : first + ROWS] = part

    for_each(range(0, len(weight), ROWS), work)
    return parts
