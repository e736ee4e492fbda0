"""What a job needs of the machine that it runs on, as values. See `phiquant.job.forecast`."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes and seconds."""

    disk: int
    """Disk space that must be free: tensors to the byte, and a reserve for everything else."""
    memory: int
    """Anonymous memory at most."""
    seconds: float
    """Expected time of rounding and writing; the survey of the weights before it is not in it."""

    calibration: bool = False
    """Whether the calibrated run before the writing is in these figures."""

    def as_json(self) -> dict[str, float | bool]:
        """The figures under their names."""
        return asdict(self)
