"""What a job needs of the machine that it runs on, as values. See `phiquant.job.forecast`."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes and seconds."""

    disk: int
    """Free space that must be there: tensors to the byte, and a spare for everything else."""
    memory: int
    """At most so much anonymous memory; mapped pages of the checkpoint are not in it."""
    seconds: float
    """About how long rounding and writing take; the first look at the weights is not in it."""

    def as_json(self) -> dict[str, float]:
        """The figures under their names."""
        return asdict(self)
