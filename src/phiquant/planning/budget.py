"""`Budget`: the limit within which bits are allocated to tensors."""

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from phiquant.errors import RequestError

MOST_BITS = 32
"""Bits of a weight in the widest format."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What bits are to be allocated to; exactly one of the three is given.

    Raises RequestError for none, for several, and for a limit that is not above 0.
    """

    bits_per_weight: float | None = None
    """Mean stored bits per weight over all tensors."""
    max_bytes: int | None = None
    """Bytes of all tensors."""
    max_kl: float | None = None
    """Mean divergence from the original, in nats a token."""

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.as_json().items() if value is not None}
        if len(given) != 1:
            raise RequestError(
                "expected one of `bits_per_weight`, `max_bytes` and `max_kl`, found "
                f"{len(given) or 'none'}; choose one"
            )
        ((name, value),) = given.items()
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not isfinite(value) or value <= 0:
            raise RequestError(f"expected a number above 0 for `{name}`, found {value!r}")
        if name == "bits_per_weight" and value > MOST_BITS:
            raise RequestError(
                f"expected at most {MOST_BITS} for `{name}`, those of FP32, found {value:g}"
            )

    def as_json(self) -> dict[str, Any]:
        """The budget as it is recorded."""
        return asdict(self)
