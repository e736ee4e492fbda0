"""What a layer's inputs are like, channel by channel: what its errors are worth in the outputs."""

from dataclasses import dataclass

import numpy as np

from phiquant.quantization.grid import Floats


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a layer's inputs are like, channel by channel, (columns,) each."""

    squares: Floats
    """Mean squares."""
    means: Floats | None = None
    """None where they are not known: most importance matrices have none."""

    def scaled(self, factors: Floats) -> "Inputs":
        """Those of inputs that are `factors` (columns,) times as large."""
        means = None if self.means is None else self.means * factors
        return Inputs(self.squares * np.square(factors), means)
