"""A linear layer's weight on a grid, rounded against the moments of the layer's inputs.

    shrink     the moments of a sample towards their diagonal: (1 - a) H + a diag(H). What the
               sample shows of how inputs go together is partly chance and partly its own
               subject, and feedback would rely on all of it (Ledoit and Wolf, 2004, shrink
               for the first)
    correct    the weight that makes best good, in the least squares, for inputs that the layers
               before have shifted: W + s W C (H + λ)⁻¹ with C = E[(x' - x) xᵀ], where x' are the
               original's inputs (GPTAQ, https://arxiv.org/abs/2504.02692, and Qronos,
               https://arxiv.org/abs/2505.11695, aim at the same minimum). A layer that adds to
               the residual stream also makes up for what that is behind the original's, r:
               + b E[r xᵀ] (H + λ)⁻¹. Strengths s and b go from 0, not at all, to 1.
    round      codes with feedback (`columns.py`)
    improve    codes and parameters in turn (`descent.py`)

Bands of rows are independent and go over the cores. Within a band rows are too, unless the moments
of the layer's outputs are given: then errors are made good across its rows as well, and parameters
stay as they were fitted (`two_sided.py`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from phiquant.host.threads import for_each, multiply
from phiquant.quantization.feedback.columns import Feedback, round_with_feedback
from phiquant.quantization.feedback.descent import errors_of, improve_codes, improve_parameters
from phiquant.quantization.feedback.factors import damped
from phiquant.quantization.feedback.two_sided import RowFeedback
from phiquant.quantization.grid import AffineGrid, Floats, Parts

ROWS = 256
"""Rows that one core rounds at a time, and within which errors are made good for one another."""


class LayerMoments(Protocol):
    """What rounding needs to know of a layer's inputs x (n,): see `calibration.moments`."""

    @property
    def second(self) -> Floats:
        """E[x xᵀ], (n, n)."""

    @property
    def shift(self) -> Floats | None:
        """E[(x' - x) xᵀ], (n, n)."""

    @property
    def behind(self) -> Floats | None:
        """E[r xᵀ], (rows, n)."""


@dataclass(frozen=True, slots=True)
class Method:
    """How weights are rounded; every part can be switched off.

    The defaults did best on a small model, over a text that is used for nothing else: half of
    either correction did better than none of it and than all of it; damping mattered little.
    """

    rescaling: bool = True
    """Whether channels are re-scaled first: see `rescaling`. It is the same for all layers."""
    damping: float = 0.03
    """Share of the mean second moment that is added to every one: see `factors.damped`."""
    shrinkage: float = 0.3
    """Share of the second moments off the diagonal that is taken away."""
    shift: float = 0.5
    """Strength of the correction for shifted inputs."""
    behind: float = 0.5
    """Strength of the correction for a residual stream that is behind."""
    sweeps: int = 1
    """How often codes and parameters are improved after the rounding."""
    codes: bool = True
    parameters: bool = True
    multiples: tuple[float, ...] = (0.88, 0.92, 0.96, 1.04, 1.08, 1.12)
    """Multiples of a block's fitted levels that are tried too: see `multiples`."""
    output_damping: float | None = 1.0
    """Share of the mean of the output moments' diagonal that is added to it; with None the moments
    are left out, and every row is rounded on its own: see `two_sided`."""

    @property
    def looks_at_original(self) -> bool:
        """Whether the inputs of the unquantized network are needed too."""
        return self.shift > 0 or self.behind > 0


def shrunk(moment: Floats, share: float) -> Floats:
    """`moment` (n, n) with everything off its diagonal reduced by `share`."""
    smaller = moment * np.float32(1 - share)
    smaller[np.diag_indices_from(smaller)] = np.diagonal(moment)
    return smaller


class Rounder:
    """A layer's moments, prepared for rounding rows of its weight onto grids of a block size.

    `outputs` (blocks, ROWS, ROWS) are the diagonal blocks of G = E[g gᵀ], g (rows,) the gradient
    of the log-likelihood with respect to the layer's outputs. Rows beyond them have none.
    """

    def __init__(
        self,
        moments: LayerMoments,
        block: int,
        method: Method,
        outputs: Floats | None = None,
    ) -> None:
        self._method = method
        self._outputs = None if method.output_damping is None else outputs
        self._stiff = damped(shrunk(moments.second, method.shrinkage), method.damping)
        self._feedback = Feedback.of(self._stiff, block)
        self._correction = self._addition = None
        if moments.shift is not None and method.shift:
            self._correction = self._feedback.divided(moments.shift)
            self._correction *= np.float32(method.shift)
        if moments.behind is not None and method.behind:
            self._addition = self._feedback.divided(moments.behind)
            self._addition *= np.float32(method.behind)

    def round(self, weight: Floats, grid: AffineGrid, start: int = 0) -> Parts:
        """The parts stored for the layer's rows from `start` on: `weight` (rows, n)."""
        aimed = self._aimed(weight, start)
        layout = grid.layout(weight.shape)
        parts: dict[str, npt.NDArray[Any]] = {
            name: np.empty(part.shape, part.dtype) for name, part in layout.items()
        }

        def work(band: tuple[int, int]) -> None:
            first, last = band
            here = slice(first - start, last - start)
            across = self._across(first, last)
            order = np.arange(last - first) if across is None else across.order
            for name, part in self._band(aimed[here][order], grid, across).items():
                parts[name][here][order] = part

        # Bands end where those of the outputs' moments do, wherever the rows start.
        inner = range((start // ROWS + 1) * ROWS, start + len(weight), ROWS)
        for_each(list(pairwise([start, *inner, start + len(weight)])), work)
        return parts

    def _aimed(self, weight: Floats, first: int) -> Floats:
        """What the rows from `first` on should become if every value could be stored."""
        aimed = weight
        if self._correction is not None:
            aimed = np.empty(weight.shape, np.float32)
            multiply(weight, self._correction.T, aimed)
            aimed += weight
        if self._addition is not None:
            aimed = aimed + self._addition[first : first + len(weight)]
        return aimed

    def _across(self, first: int, last: int) -> RowFeedback | None:
        """The outputs' moments of the rows `first` to `last`, which lie within one band."""
        damping, block = self._method.output_damping, first // ROWS
        if self._outputs is None or damping is None or block >= len(self._outputs):
            return None
        here = slice(first - block * ROWS, last - block * ROWS)
        return RowFeedback.of(self._outputs[block, here, here], damping)

    def _band(self, rows: Floats, grid: AffineGrid, across: RowFeedback | None) -> Parts:
        """The parts of `rows`, which are in the order of `across`."""
        method = self._method
        factors, moment = (None, None) if across is None else (across.factors, across.moment)
        codes, levels = round_with_feedback(rows, self._feedback, grid, method.multiples, factors)
        if method.sweeps:
            errors = errors_of(rows, codes, levels)
            for _ in range(method.sweeps):
                if method.codes:
                    improve_codes(codes, errors, levels, (self._stiff, moment), grid)
                if method.parameters and across is None:  # their steps look at one row alone
                    levels = improve_parameters(codes, errors, levels, self._stiff, grid)
        return grid.pack(codes, levels)
