"""Statistics of a layer's inputs, channel by channel: they say what its errors cost."""

from dataclasses import dataclass

import numpy as np

from phiquant.quantization.grid import Floats


@dataclass(frozen=True, slots=True)
class Inputs:
    """Statistics of a layer's inputs, channel by channel, (columns,) each."""

    squares: Floats
    """Mean squares."""
    means: Floats | None = None
    """Means; None where they are not known: most importance matrices have none."""

    def scaled(self, factors: Floats) -> "Inputs":
        """The statistics of inputs that are `factors` (columns,) times as large."""
        means = None if self.means is None else self.means * factors
        return Inputs(self.squares * np.square(factors), means)
