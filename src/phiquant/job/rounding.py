"""The three ways in which a tensor's weights become what is stored.

    fast       to the levels of least squared error, from the weights alone
    balanced   the same, each column's errors weighed by the mean square of its inputs, and with
               feedback by the means of these (`quantization.feedback.means`)
    best       taken from the journal of a calibrated run, which rounded them layer by layer

The latter two re-scale channels first, exactly, if the recipe lets them: then norm gains are those
that go with it. Otherwise, and by `fast`, vectors are stored as they are.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.journal import Journal
from phiquant.calibration.text import CalibrationSample
from phiquant.job.evidence import BALANCED_SEQUENCES, Evidence
from phiquant.job.layerwise import Calibration, Wanted, calibrate
from phiquant.job.streaming import Rounding
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan, PlanRow
from phiquant.progress import OnProgress, Progress
from phiquant.quantization.feedback.means import encode_for
from phiquant.quantization.feedback.rounder import Method
from phiquant.quantization.grid import Floats, Grid, Parts
from phiquant.quantization.inputs import Inputs
from phiquant.quantization.rescaling import Rescaled, even_factors
from phiquant.recipe import Recipe
from phiquant.targets.importance import ImatrixDataset, ImatrixEntry
from phiquant.targets.table import importance_files, target

Roundings = Callable[[Recipe, PlanRow], Rounding]
"""How a row of the artifact of a recipe is rounded."""


def rounded(grid: Grid, inputs: Inputs | None = None) -> Rounding:
    """Rounding band by band; `inputs` are those that the weights will meet."""
    return lambda first, weights: encode_for(grid, weights, inputs)


def rescaled(network: Rescaled, name: str, grid: Grid, inputs: Inputs | None = None) -> Rounding:
    """`rounded` of what re-scaling makes of the weights; `inputs` are from before it."""
    gains, fold = network.gains(name), network.fold(name)
    if gains is not None:
        return lambda first, weights: grid.encode(gains.reshape(weights.shape))
    there = rounded(grid, None if inputs is None else fold.of_inputs(inputs))
    return lambda first, weights: there(first, fold.of(weights, first))


def kept(journal: Journal, artifact: str, row: PlanRow, grid: Grid) -> Rounding:
    """What a calibrated run has kept for a tensor."""
    parts = journal.parts(artifact, row.output, grid.layout(row.shape))

    def taken(first: int, weights: Floats) -> Parts:
        here = slice(first - row.first, first - row.first + len(weights))
        return {name: part[here] for name, part in parts.items()}

    return taken


@contextmanager
def calibrated(
    checkpoint: Checkpoint,
    asked: Sequence[tuple[Recipe, Plan]],
    evidence: Evidence,
    output: Path,
    on_progress: OnProgress,
) -> Iterator[Roundings]:
    """Do what the recipes' qualities ask for before the writing; yield how each row is rounded.

    A calibrated run keeps its journal beside `output`. It is removed when the block ends well;
    after anything else the same request finds it and goes on. An importance matrix is written
    when the block ends well.
    """
    sample = evidence.sample
    inputs: Mapping[str, Inputs] = {}
    found = journal = None
    if evidence.importance is not None:
        inputs = evidence.importance.inputs
    elif any(recipe.quality == "balanced" for recipe, _ in asked) or evidence.imatrix is not None:
        assert sample is not None
        found = gathered(checkpoint, sample, on_progress)
        inputs = found.inputs()
    networks: dict[str, Rescaled] = {}
    if any(recipe.quality == "balanced" and recipe.rescaling for recipe, _ in asked):
        networks["balanced"] = Rescaled(checkpoint, even_factors(checkpoint, inputs))
    best = [(recipe, plan) for recipe, plan in asked if recipe.quality == "best"]
    if sample is not None and best:
        method = Method(rescaling=best[0][0].rescaling)  # they agree: see `order`
        journal = Journal(
            output.parent / f".{output.name}.calibration", _key(checkpoint, best, sample, method)
        )
        wanted = [wanted_for(recipe, plan) for recipe, plan in best]
        over = Calibration(np.stack(sample.tokens), method)
        networks["best"] = calibrate(checkpoint, wanted, over, journal, on_progress)
    with_codes = {recipe.target for recipe, plan in asked if _has_codes(recipe, plan)}

    def rounding(recipe: Recipe, row: PlanRow) -> Rounding:
        grid = target(recipe.target).grids[row.grid]
        network = networks.get(recipe.quality) if recipe.rescaling else None
        if row.source is None or row.role is None or recipe.target not in with_codes:
            return rounded(grid)
        if recipe.quality == "best" and journal is not None and not row.role.is_norm:
            return kept(journal, recipe.target, row, grid)
        met = inputs.get(row.source) if recipe.quality == "balanced" else None
        if network is None:
            return rounded(grid, met)
        return rescaled(network, row.source, grid, met)

    yield rounding
    if evidence.imatrix is not None and found is not None and sample is not None:
        _write_imatrix(evidence.imatrix, found, sample)
    if journal is not None:
        shutil.rmtree(journal.directory)


def gathered(
    checkpoint: Checkpoint, sample: CalibrationSample, on_progress: OnProgress
) -> InputSums:
    """Means and squares of every matrix's inputs over the first sequences of the sample."""
    found = InputSums()
    windows = sample.tokens[:BALANCED_SEQUENCES]
    for done in found.gather(checkpoint, windows):
        on_progress(Progress("calibrating", done, len(windows), "sequences"))
    return found


def _write_imatrix(path: Path, found: InputSums, sample: CalibrationSample) -> None:
    entries = {
        name: ImatrixEntry(sums.squares, sums.tokens, sums.plain)
        for name, sums in found.sums().items()
    }
    over = ImatrixDataset(sample.record.name, sample.record.length)
    importance_files().write(path, entries, over)


def _has_codes(recipe: Recipe, plan: Plan) -> bool:
    """Whether anything of the artifact is rounded; floats are stored as they are."""
    grids = target(recipe.target).grids
    return any(hasattr(grids[row.grid], "fit") for row in plan.rows)


def wanted_for(recipe: Recipe, plan: Plan) -> Wanted:
    """What a calibrated run is to round for the artifact of a recipe."""
    return Wanted(recipe.target, plan.by_source, target(recipe.target).grids)


def _key(
    checkpoint: Checkpoint,
    asked: Sequence[tuple[Recipe, Plan]],
    sample: CalibrationSample,
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
