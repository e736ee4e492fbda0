"""The grid of a float type: every weight is cast, and nothing is shared between weights."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.quantization.floats import FloatType, cast, widen
from phiquant.quantization.grid import Floats, PartLayout, Parts


@dataclass(frozen=True, slots=True)
class FloatGrid:
    """F32, F16 or BF16 in one part, "weight": one cast a weight. BF16 is stored as uint16."""

    kind: FloatType

    @property
    def name(self) -> str:
        """The type's name."""
        return self.kind.name

    @property
    def block(self) -> int:
        """Any row length will do."""
        return 1

    def layout(self, shape: tuple[int, ...]) -> dict[str, PartLayout]:
        """One part, "weight"."""
        return {"weight": PartLayout(self.kind.stored, shape)}

    def encode(
        self, weights: Floats, importance: Floats | None = None
    ) -> dict[str, npt.NDArray[np.generic]]:
        """Round each weight to the nearest float; ValueError if it is not finite, or becomes so."""
        return {"weight": cast(weights, self.kind)}

    def decode(self, parts: Parts, columns: int) -> Floats:
        """The weights (rows, columns), exactly."""
        return widen(parts["weight"], self.kind)
