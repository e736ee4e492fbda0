"""`Plan`: the whole truth about an artifact, before its first byte.

One row a tensor: where it comes from, what it does, the grid it is stored on, the bytes it
takes, and the reason for the choice in words.
"""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, Self

from phiquant.phi.network.parts import Role


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One tensor of the artifact.

    `source` is the checkpoint's name for it, None where it is computed from the configuration
    (LongRoPE's factors). `output` is the artifact's name; a grid with several stored parts
    adds its own suffixes. `nbytes` counts all stored parts, without alignment.
    """

    source: str | None
    output: str
    role: Role | None
    layer: int | None
    shape: tuple[int, ...]
    grid: str
    nbytes: int
    reason: str
    first: int = 0
    """The first row of the source that the tensor holds; a part of a fused weight holds some
    rows."""

    @property
    def weights(self) -> int:
        """The number of weights in the tensor."""
        return prod(self.shape)

    def overlap(self, first: int, count: int) -> slice:
        """Which of `count` rows of the source from `first` on are this tensor's."""
        low = min(max(self.first - first, 0), count)
        return slice(low, min(max(self.first + self.shape[0] - first, low), count))


@dataclass(frozen=True, slots=True)
class Plan:
    """Every tensor of one artifact, and what they add up to."""

    target: str
    type: str
    rows: tuple[PlanRow, ...]
    notes: tuple[str, ...] = ()
    """Sentences that hold for the artifact as a whole."""

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data, to the byte."""
        return sum(row.nbytes for row in self.rows)

    @property
    def weights(self) -> int:
        """Weights in all tensors."""
        return sum(row.weights for row in self.rows)

    @property
    def bits_per_weight(self) -> float:
        """Mean stored bits per weight over the whole artifact."""
        return 8 * self.nbytes / self.weights

    @property
    def by_source(self) -> dict[str, list[PlanRow]]:
        """By tensor of the checkpoint: the tensors that hold it, in the order of its rows."""
        rows_of: dict[str, list[PlanRow]] = {}
        for row in sorted(self.rows, key=lambda row: row.first):
            if row.source is not None:
                rows_of.setdefault(row.source, []).append(row)
        return rows_of

    @property
    def grids(self) -> Counter[str]:
        """How many tensors lie on each grid."""
        return Counter(row.grid for row in self.rows)

    def with_notes(self, notes: tuple[str, ...]) -> Self:
        """The same plan with more notes."""
        return replace(self, notes=self.notes + notes)

    def as_json(self) -> dict[str, Any]:
        """The plan as it is recorded in `phiquant.json` and printed with --json."""
        return {
            "target": self.target,
            "type": self.type,
            "nbytes": self.nbytes,
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "notes": list(self.notes),
            "rows": [asdict(row) for row in self.rows],
        }
