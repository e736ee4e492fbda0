"""The four ways in which a tensor's weights become what is stored.

    data-free  to the levels of least squared error, from the weights alone
    fast       the same, each column's errors weighed by the mean square of its inputs, and with
               feedback by the means of these (`quantization.feedback.means`), over a glance at text
    balanced   the same over a longer text
    best       taken from the journal of a calibrated run, which rounded them layer by layer

All but the first re-scale channels before that, exactly, if the recipe lets them: then norm gains
are those that go with it. Otherwise, and by `data-free`, vectors are stored as they are.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from phiquant import __version__
from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.journal import Journal
from phiquant.calibration.text import CalibrationSample
from phiquant.host.hashes import BackgroundHashes, hash_array
from phiquant.host.staging import Place, held, staged_file
from phiquant.job.evidence import Evidence, has_codes
from phiquant.job.layerwise import Calibration, Wanted, calibrate
from phiquant.job.streaming import Rounding
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.weights import Tokens
from phiquant.planning.plan import Plan, PlanRow
from phiquant.progress import OnProgress, Progress
from phiquant.quantization.feedback.means import encoder_for
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
    encode = encoder_for(grid, inputs)
    return lambda first, weights: encode(weights)


def rescaled(network: Rescaled, name: str, grid: Grid, inputs: Inputs | None = None) -> Rounding:
    """`rounded` of what re-scaling makes of the weights; `inputs` are from before it."""
    gains, fold = network.gains(name), network.fold(name)
    if gains is not None:
        return lambda first, weights: grid.encode(gains.reshape(weights.shape))
    folded = rounded(grid, None if inputs is None else fold.of_inputs(inputs))
    return lambda first, weights: folded(first, fold.of(weights, first))


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
    job: "Job",
    on_progress: OnProgress,
) -> Iterator[Roundings]:
    """Do what the recipes' qualities ask for before the writing; yield how each row is rounded.

    A calibrated run keeps its journal beside the destination. It is removed when the block ends
    well; after anything else the same request finds it and goes on. An importance matrix is written
    before anything is yielded, and appears when the block ends well.
    """
    sample = evidence.sample
    inputs: dict[str, Mapping[str, Inputs]] = {}
    with ExitStack() as stack:
        if evidence.importance is not None:
            inputs["balanced"] = evidence.importance.inputs
        for quality, sequences in evidence.sequences(asked).items():
            sums = gathered(checkpoint, sequences, on_progress)
            inputs[quality] = sums.inputs()
            if quality == "balanced" and evidence.imatrix is not None:
                assert sample is not None
                _write_imatrix(_staged_matrix(stack, evidence.imatrix, job.place), sums, sample)
        networks = {
            quality: Rescaled(checkpoint, even_factors(checkpoint, shown))
            for quality, shown in inputs.items()
            if any(recipe.quality == quality and recipe.rescaling for recipe, _ in asked)
        }
        best = [(recipe, plan) for recipe, plan in asked if recipe.quality == "best"]
        journal = None
        if sample is not None and best:
            method = Method(rescaling=best[0][0].rescaling)  # they agree: see `order`
            key = journal_key(checkpoint, job.hashes.result(), best, sample, method)
            journal = stack.enter_context(_journal(job.place, key))
            wanted = [wanted_for(recipe, plan) for recipe, plan in best]
            over = Calibration(np.stack(sample.tokens), method)
            networks["best"] = calibrate(checkpoint, wanted, over, journal, on_progress)
        yield _Chosen(asked, inputs, networks, journal)


@dataclass(frozen=True, slots=True)
class Job:
    """What a job holds while it works: its destination's lock, and the hashes in the making."""

    place: Place
    hashes: BackgroundHashes


@contextmanager
def _journal(place: Place, key: str) -> Iterator[Journal]:
    """The journal of a calibrated run, removed if the block ends normally."""
    journal = Journal(place.journal, key)
    try:
        yield journal
    except BaseException as error:
        error.add_note(
            f"what was calibrated is kept in {place.journal}: the same command goes on with it, "
            "`phiquant clean` removes it"
        )
        raise
    shutil.rmtree(journal.directory)


class _Chosen:
    """How each row is rounded, by its recipe's quality."""

    def __init__(
        self,
        asked: Sequence[tuple[Recipe, Plan]],
        inputs: Mapping[str, Mapping[str, Inputs]],
        networks: Mapping[str, Rescaled],
        journal: Journal | None,
    ) -> None:
        self._inputs, self._networks, self._journal = inputs, networks, journal
        self._with_codes = {recipe.target for recipe, plan in asked if has_codes(recipe, plan)}

    def __call__(self, recipe: Recipe, row: PlanRow) -> Rounding:
        grid = target(recipe.target).grids[row.grid]
        network = self._networks.get(recipe.quality) if recipe.rescaling else None
        if row.source is None or row.role is None or recipe.target not in self._with_codes:
            return rounded(grid)
        if recipe.quality == "best" and self._journal is not None and not row.role.is_norm:
            return kept(self._journal, recipe.target, row, grid)
        inputs = self._inputs.get(recipe.quality, {}).get(row.source)
        if network is None:
            return rounded(grid, inputs)
        return rescaled(network, row.source, grid, inputs)


def gathered(
    checkpoint: Checkpoint, sequences: Sequence[Tokens], on_progress: OnProgress
) -> InputSums:
    """Means and squares of every matrix's inputs over the sequences."""
    sums = InputSums()
    for done in sums.gather(checkpoint, sequences):
        on_progress(Progress("calibrating", done, len(sequences), "sequences"))
    return sums


def _staged_matrix(stack: ExitStack, path: Path, job: Place) -> tuple[Path, str]:
    """Where to write the importance matrix that is to appear at `path` when `stack` is left well,
    and the suffix that it will have.
    """
    if job.destination.absolute() in path.absolute().parents:
        return stack.enter_context(staged_file(job, path)), path.suffix
    place = stack.enter_context(held(path))
    return stack.enter_context(staged_file(place)), path.suffix


def _write_imatrix(to: tuple[Path, str], sums: InputSums, sample: CalibrationSample) -> None:
    new, suffix = to
    entries = {
        name: ImatrixEntry(each.squares, each.tokens, each.plain)
        for name, each in sums.sums().items()
    }
    over = ImatrixDataset(sample.record.name, sample.record.length)
    importance_files().write(new, entries, over, suffix)


def wanted_for(recipe: Recipe, plan: Plan) -> Wanted:
    """What a calibrated run is to round for the artifact of a recipe."""
    return Wanted(recipe.target, plan.by_source, target(recipe.target).grids)


def journal_key(
    checkpoint: Checkpoint,
    weights: Mapping[str, str],
    asked: Sequence[tuple[Recipe, Plan]],
    sample: CalibrationSample,
    method: Method,
) -> str:
    """What a journal is good for: everything that decides the bytes that a calibrated run leaves.

    `weights` are the hashes of the checkpoint's files. The key is a hash, so that what is read back
    is what was written, whatever JSON makes of a tuple.
    """
    content = {
        "phiquant": __version__,
        "packages": {name: version(name) for name in ("numpy", "numba")},
        "processor": platform.machine(),
        "config": checkpoint.config,
        "adapter": None if checkpoint.adapter is None else checkpoint.adapter.settings,
        "weights": weights,
        "plans": [plan.as_json() for _, plan in asked],
        "tokens": hash_array(np.stack(sample.tokens)),
        "method": asdict(method),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
