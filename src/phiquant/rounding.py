"""The three ways in which a tensor's weights become what is stored.

    fast       to the levels of least squared error, from the weights alone
    balanced   the same, each column's errors weighed by the mean square of its inputs
    best       taken from the journal of a calibrated run, which rounded them layer by layer

Vectors (norm gains) are stored as they are by all three.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from phiquant.basis import Basis
from phiquant.calibrated import Calibration, Wanted, calibrate
from phiquant.calibration.diagonals import Diagonals
from phiquant.calibration.journal import Journal
from phiquant.calibration.text import Sample
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.planning.plan import Plan, PlanRow
from phiquant.progress import OnProgress, Progress
from phiquant.quantization.calibrated import Method
from phiquant.quantization.grid import Floats, Grid, Parts
from phiquant.recipe import Recipe
from phiquant.streaming import Rounding
from phiquant.targets.gguf.imatrix import Entry, Text
from phiquant.targets.gguf.importance import write_importance
from phiquant.targets.table import target

BALANCED_SEQUENCES = 32
"""Sequences that mean squares are taken over: they settle long before full moments do."""

BATCH_TOKENS = 4096

Roundings = Callable[[Recipe, PlanRow], Rounding]
"""How a row of the artifact of a recipe is rounded."""


def nearest(grid: Grid, importance: Floats | None = None) -> Rounding:
    """Rounding band by band; `importance` (columns,) weighs the errors."""
    return lambda first, weights: grid.encode(weights, importance)


def kept(journal: Journal, artifact: str, row: PlanRow, grid: Grid) -> Rounding:
    """What a calibrated run has kept for a tensor."""
    assert row.source is not None
    parts = journal.parts(artifact, row.source, grid.layout(row.shape))

    def taken(first: int, weights: Floats) -> Parts:
        return {name: part[first : first + len(weights)] for name, part in parts.items()}

    return taken


@contextmanager
def calibrated(
    checkpoint: Checkpoint,
    asked: Sequence[tuple[Recipe, Plan]],
    basis: Basis,
    output: Path,
    on_progress: OnProgress,
) -> Iterator[Roundings]:
    """Do what the recipes' qualities ask for before the writing; yield how each row is rounded.

    A calibrated run keeps its journal beside `output`. It is removed when the block ends well;
    after anything else the same request finds it and goes on. An importance matrix is written
    when the block ends well.
    """
    sample = basis.sample
    means: Mapping[str, Floats] = {}
    found = journal = None
    if basis.importance is not None:
        means = basis.importance.means
    elif any(recipe.quality == "balanced" for recipe, _ in asked) or basis.imatrix is not None:
        assert sample is not None
        found = squares(checkpoint, sample, on_progress)
        means = found.result()
    best = [(recipe, plan) for recipe, plan in asked if recipe.quality == "best"]
    if sample is not None and best:
        method = Method()
        journal = Journal(
            output.parent / f".{output.name}.calibration", _key(checkpoint, best, sample, method)
        )
        wanted = [_wanted(recipe, plan) for recipe, plan in best]
        over = Calibration(np.stack(sample.tokens), method)
        calibrate(checkpoint, wanted, over, journal, on_progress)

    def rounding(recipe: Recipe, row: PlanRow) -> Rounding:
        grid = target(recipe.target).grids[row.grid]
        matrix = row.source is not None and row.role is not None and not row.role.is_norm
        if matrix and recipe.quality == "best" and journal is not None:
            return kept(journal, recipe.target, row, grid)
        if matrix and recipe.quality == "balanced":
            return nearest(grid, means.get(row.source or ""))
        return nearest(grid)

    yield rounding
    if basis.imatrix is not None and found is not None and sample is not None:
        _write_imatrix(basis.imatrix, found, sample)
    if journal is not None:
        shutil.rmtree(journal.directory)


def squares(checkpoint: Checkpoint, sample: Sample, on_progress: OnProgress) -> Diagonals:
    """The squares of every matrix's inputs over the first sequences of the sample."""
    found = Diagonals()
    reference = Reference(checkpoint, observe=found.add)
    windows = sample.tokens[:BALANCED_SEQUENCES]
    step = max(1, BATCH_TOKENS // sample.record.length)
    for first in range(0, len(windows), step):
        for hidden in reference.hidden_states(windows[first : first + step]):
            found.add(checkpoint.architecture.head_name, hidden)
        done = min(first + step, len(windows))
        on_progress(Progress("calibrating", done, len(windows), "sequences"))
    return found


def _write_imatrix(path: Path, found: Diagonals, sample: Sample) -> None:
    entries = {name: Entry(sums, tokens) for name, (sums, tokens) in found.sums().items()}
    write_importance(path, entries, Text(sample.record.name, sample.record.length))


def _wanted(recipe: Recipe, plan: Plan) -> Wanted:
    into = target(recipe.target)
    rows = {row.source: row for row in plan.rows if row.source is not None}
    return Wanted(recipe.target, rows, into.grids)


def _key(
    checkpoint: Checkpoint,
    asked: Sequence[tuple[Recipe, Plan]],
    sample: Sample,
    method: Method,
) -> dict[str, object]:
    """What a journal is good for: the same weights, plans, text and method."""
    plans = json.dumps([plan.as_json() for _, plan in asked], sort_keys=True)
    return {
        "files": [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in checkpoint.files
        ],
        "plans": hashlib.sha256(plans.encode()).hexdigest(),
        "sample": sample.record.as_json(),
        "method": asdict(method),
    }
