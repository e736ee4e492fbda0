"""A linear layer's weight on a grid, rounded against the moments of the layer's inputs.

    correct    the weight that makes best good, in the least squares, for inputs that the layers
               before have shifted: W + s W C (H + λ)⁻¹ with C = E[(x' - x) xᵀ], where x' are the
               original's inputs (GPTAQ, https://arxiv.org/abs/2504.02692, and Qronos,
               https://arxiv.org/abs/2505.11695, aim at the same minimum). The strength s goes
               from 0, not at all, to 1.
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


def correction(moment: Floats, shift: Floats, strength: float) -> Floats:
    """What to add to a weight, as a share of itself: W + W @ correction; `moment` is damped."""
    answer = np.linalg.solve(moment.astype(np.float64), shift.T.astype(np.float64))
    return (strength * answer.T).astype(np.float32)


class Rounder:
    """A layer's moments, prepared for rounding rows of its weight onto a grid."""

    def __init__(
        self, moment: Floats, shift: Floats | None, grid: AffineGrid, method: Method
    ) -> None:
        """`moment` E[x xᵀ] and `shift` E[(x' - x) xᵀ] are (n, n)."""
        self._grid, self._method = grid, method
        self._stiff = damped(moment, method.damping)
        self._correction = None
        if shift is not None and method.shift:
            self._correction = correction(self._stiff, shift, method.shift)
        self._feedback = Feedback.of(moment, grid.block, method.damping)

    def round(self, weight: Floats) -> Parts:
        """The stored parts of rows `weight` (rows, n)."""
        layout = self._grid.layout(weight.shape)
        parts: dict[str, npt.NDArray[Any]] = {
            name: np.empty(part.shape, part.dtype) for name, part in layout.items()
        }

        def work(first: int) -> None:
            for name, part in self._band(weight[first : first + ROWS]).items():
                parts[name][first : first + ROWS] = part

        for_each(range(0, len(weight), ROWS), work)
        return parts

    def _band(self, rows: Floats) -> Parts:
        grid, method, stiff = self._grid, self._method, self._stiff
        if self._correction is not None:
            rows = rows + rows @ self._correction
        codes, levels = round_with_feedback(rows, self._feedback, grid)
        if method.sweeps:
            errors = errors_of(rows, codes, levels)
            for _ in range(method.sweeps):
                if method.codes:
                    improve_codes(codes, errors, levels, stiff, grid)
                if method.parameters:
                    levels = improve_parameters(codes, errors, levels, stiff, grid)
        return grid.pack(codes, levels)
