"""Is the artifact, tensor by tensor and field by field, the checkpoint's network?

One pass over both, a band of rows at a time: every weight that the architecture requires is
there, has its shape, decodes to finite values, and lies within rounding of the checkpoint's.

Channels may be scaled by factors that the next layer divides out (`quantization.rescaling`): by
what the gains of a norm, a row of the values or one of the up half are scaled, by that the columns
which they feed are multiplied before they are compared. A factor that nothing divides out stands
out there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from math import inf, isclose, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.errors import ArtifactError
from phiquant.evaluation.channels import ChannelFactors
from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.evaluation.thresholds import WEIGHT_ERROR
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.listed import listed
from phiquant.phi.network.parts import LongRope, Rope, Weight
from phiquant.phi.survey import Survey
from phiquant.phi.weights import row_bands
from phiquant.targets.form import Request
from phiquant.targets.target import Artifact, Target

COMPARED = 1 << 17
"""Weights that are compared at a time: they stay in a core's cache through all steps, which takes
a third of the time that 64 MiB take."""

FLOAT_TOLERANCE = 1e-6
"""Relative; formats store these numbers as float32."""


@dataclass(frozen=True, slots=True)
class WeightErrors:
    """How far the decoded weights are from the checkpoint's."""

    relative: float
    """Root of the squared error over all matrices, over the norm of the checkpoint's."""
    worst: float
    """The largest such ratio of a single tensor."""
    worst_name: str
    """That tensor, by its checkpoint name; empty where no tensor could be compared."""

    def as_json(self) -> dict[str, float | str]:
        """The figures as they are recorded."""
        return {
            "relative": self.relative,
            "worst": self.worst,
            "worst_name": self.worst_name,
        }


@dataclass(frozen=True, slots=True)
class _Compared:
    """Sums of squares over one tensor; `fault` is empty where it could be compared."""

    weight: Weight
    error: float = 0.0
    norm: float = 0.0
    fault: str = ""

    @property
    def relative(self) -> float:
        if self.norm == 0:
            return 0.0 if self.error == 0 else inf
        return sqrt(self.error / self.norm)


def check_weights(
    artifact: Artifact, checkpoint: Checkpoint, advance: Callable[[], None] = lambda: None
) -> tuple[WeightErrors, tuple[Check, ...]]:
    """Compare every weight; `advance` is called after each."""
    compared = []
    factors = ChannelFactors(checkpoint.architecture.network)
    for weight in checkpoint.architecture.weights():
        compared.append(_compare(artifact, checkpoint, weight, factors))
        factors.forget(weight)
        advance()
    broken = [
        f"{comparison.weight.name} {comparison.fault}"
        for comparison in compared
        if comparison.fault
    ]
    whole = [comparison for comparison in compared if not comparison.fault]
    worst = max(whole, key=lambda comparison: comparison.relative, default=None)
    matrices = [comparison for comparison in whole if not comparison.weight.role.is_norm]
    norm = sum(comparison.norm for comparison in matrices)
    errors = WeightErrors(
        relative=sqrt(sum(comparison.error for comparison in matrices) / norm) if norm else 0.0,
        worst=worst.relative if worst else 0.0,
        worst_name=worst.weight.name if worst else "",
    )
    return errors, (_tensors_check(compared, broken), _rounding_check(whole, errors))


def _tensors_check(compared: list[_Compared], broken: list[str]) -> Check:
    if broken:
        return failed("tensors", f"{len(broken)} of {len(compared)}: {listed(broken)}")
    return passed(
        "tensors",
        f"all {len(compared)} tensors of the architecture are there, with their shapes, and "
        "decode to finite values",
    )


def _rounding_check(whole: list[_Compared], errors: WeightErrors) -> Check:
    strange = [comparison for comparison in whole if comparison.relative > WEIGHT_ERROR]
    if strange:
        strange.sort(key=lambda comparison: -comparison.relative)
        named = [f"{comparison.weight.name} ({comparison.relative:.3g})" for comparison in strange]
        return failed(
            "weights",
            f"{len(strange)} decoded tensors differ from the checkpoint's by more than "
            f"{WEIGHT_ERROR} of their norm, which no rounding does: {listed(named)}",
        )
    return passed(
        "weights",
        f"decoded weights differ from the checkpoint's by {errors.relative:.2g} of their norm, "
        f"at most {errors.worst:.2g} ({errors.worst_name})",
    )


def _compare(
    artifact: Artifact, checkpoint: Checkpoint, weight: Weight, factors: ChannelFactors
) -> _Compared:
    error = norm = 0.0
    for first, last in _bands(weight):
        true = checkpoint.weight(weight.name, first, last)
        try:
            stored = artifact.weight(weight.name, first, last)
        except ArtifactError as fault:
            return _Compared(weight, fault=f"cannot be read ({fault})")
        if stored.shape != true.shape:
            return _Compared(weight, fault=f"has rows of {stored.shape}, expected {true.shape}")
        if not np.isfinite(stored).all():
            return _Compared(weight, fault="decodes to NaN or infinite values")
        even = factors.undone(weight, first, stored, true)
        error += _squared(np.subtract(even, true, dtype=np.float64))
        norm += _squared(true.astype(np.float64))
    return _Compared(weight, error, norm)


def _squared(values: npt.NDArray[np.float64]) -> float:
    """The sum of squares; in float64, for a corrupt scale may put the squares beyond float32."""
    flat = values.reshape(-1)
    return float(np.einsum("i,i->", flat, flat))


def _bands(weight: Weight) -> Iterator[tuple[int, int | None]]:
    """Row ranges; a vector is one."""
    if len(weight.shape) == 1:
        yield 0, None
    else:
        rows, columns = weight.shape
        yield from row_bands(rows, columns, COMPARED)


def check_extra(artifact: Artifact, target: Target[Any], checkpoint: Checkpoint) -> Check:
    """Whether the artifact stores only what a plan for this checkpoint would store."""
    architecture = checkpoint.architecture
    names = [weight.name for weight in architecture.weights()]
    plan = target.plan(architecture, Survey(dict.fromkeys(names, 0.0)), target.read(Request()))
    known = {name for row in plan.rows for name in (row.output, row.source) if name}
    if target.apart:
        known |= {part.name for part in architecture.network.matrices}
    extra = [entry.name for entry in artifact.entries() if entry.name not in known]
    if extra:
        return failed("extra tensors", f"{len(extra)} are no part of the model: {listed(extra)}")
    return passed("extra tensors", "nothing is stored that is no part of the model")


def check_metadata(actual: Architecture, expected: Architecture) -> Check:
    """Whether the artifact's own metadata describe the checkpoint's network."""
    faults = list(_differences(actual, expected))
    if faults:
        return failed("metadata", f"not the checkpoint's network: {listed(faults, 8)}")
    limits = list(_limitations(actual, expected))
    if limits:
        return Check("metadata", Outcome.LIMITED, "; ".join(limits))
    return passed("metadata", "dimensions, norm epsilon and rotary embedding are the checkpoint's")


def _differences(actual: Architecture, expected: Architecture) -> Iterator[str]:
    for field in fields(Architecture):
        a, b = getattr(actual, field.name), getattr(expected, field.name)
        if field.name == "rope":
            yield from _rope_differences(a, b)
        elif field.name == "sliding_window" and a is None:
            continue  # a limitation of the runtime, see below
        elif not _same(a, b):
            yield f"{field.name} is {a}, expected {b}"


def _rope_differences(actual: Rope, expected: Rope) -> Iterator[str]:
    if not _same(actual.theta, expected.theta):
        yield f"rope theta is {actual.theta:g}, expected {expected.theta:g}"
    if actual.dimensions != expected.dimensions:
        yield f"{actual.dimensions} rotary dimensions, expected {expected.dimensions}"
    a, b = actual.long, expected.long
    if a is None or b is None:
        if (a is None) != (b is None):
            yield f"LongRoPE is {'missing' if a is None else 'there'}, expected otherwise"
        return
    if a.original_positions != b.original_positions:
        yield f"LongRoPE begins beyond {a.original_positions}, expected {b.original_positions}"
    if not _same(a.attention_factor, b.attention_factor):
        yield f"LongRoPE's attention factor is {a.attention_factor}, expected {b.attention_factor}"
    if one_sided(a, b) is None:
        for name in ("short_factors", "long_factors"):
            if not _same(getattr(a, name), getattr(b, name)):
                yield f"LongRoPE's {name.replace('_', ' ')} differ"


def one_sided(actual: LongRope, expected: LongRope) -> str | None:
    """Which list of the model's, "short" or "long", the artifact uses at every length, if it does.

    Some runtimes know one list only; the artifact is then right on that side of the boundary.
    """
    if _same(expected.short_factors, expected.long_factors):
        return None
    for side, used in (("short", expected.short_factors), ("long", expected.long_factors)):
        if _same(actual.short_factors, used) and _same(actual.long_factors, used):
            return side
    return None


def serves_only(artifact: Artifact, expected: Architecture) -> str | None:
    """The one side of LongRoPE's boundary that the artifact serves, None if it serves both."""
    long = artifact.architecture.rope.long
    if long is None or expected.rope.long is None:
        return None
    return one_sided(long, expected.rope.long)


def _limitations(actual: Architecture, expected: Architecture) -> Iterator[str]:
    a, b = actual.rope.long, expected.rope.long
    side = one_sided(a, b) if a is not None and b is not None else None
    if side is not None and b is not None:
        where = "up to" if side == "short" else "beyond"
        yield (
            f"LongRoPE's {side} factors serve every length here, so the artifact is the model's "
            f"only for sequences {where} {b.original_positions} tokens"
        )
    window = expected.sliding_window
    if window is not None and actual.sliding_window is None and window < expected.max_positions:
        yield (
            f"the model attends to the last {window} tokens and the artifact to all, so longer "
            "sequences differ"
        )


def _same(a: object, b: object) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) or isinstance(b, float):
        numbers = isinstance(a, int | float) and isinstance(b, int | float)
        return numbers and isclose(a, b, rel_tol=FLOAT_TOLERANCE)  # type: ignore[arg-type]
    return a == b
