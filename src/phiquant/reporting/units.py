"""Numbers as people read them."""

from phiquant.evaluation.bootstrap import Estimate

STEPS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(nbytes: float) -> str:
    """Bytes in decimal units: "89.1 MB"."""
    for unit, factor in STEPS:
        if nbytes >= factor:
            return f"{nbytes / factor:,.1f} {unit}"
    return f"{nbytes:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes, then hours: "40 s", "3.5 min", "2.5 h"."""
    if seconds < 1:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def estimate(of: Estimate, scale: float = 1.0, digits: int = 4) -> str:
    """A figure with its standard error, both to the same place: "0.0312 ± 0.0011".

    `digits` are kept of the figure; more where that would hide the error's first two.
    """
    value, error = of.value * scale, of.error * scale
    if not abs(value) < float("inf"):
        return "not finite"
    if value == 0 and not error > 0:
        return "0"
    decimals = _decimals(value, digits)
    if not error > 0 or error == float("inf"):
        return _plain(value, decimals)
    decimals = min(decimals, _decimals(error, 2))
    return f"{_plain(value, decimals)} ± {_plain(error, decimals)}"


def _decimals(value: float, digits: int) -> int:
    """Places after the point at which `digits` significant digits end; may be negative."""
    if value == 0:
        return digits
    return digits - int(f"{value:e}".rpartition("e")[2]) - 1


def _plain(value: float, decimals: int) -> str:
    """Fixed-point where that is short, else with an exponent."""
    if 0 <= decimals <= 6:
        return f"{value:.{decimals}f}"
    if decimals < 0:
        return f"{value:.0f}"
    shown = decimals + int(f"{value:e}".rpartition("e")[2])
    return f"{value:.{max(shown, 0)}e}"
