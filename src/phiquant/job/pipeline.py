"""The main job: checkpoint → survey → plan → one reading → artifacts.

`prepare` does all that can be done before the first byte is written, `carry_out` the rest, and
`quantize` both. See `planning` for what is decided, `forecast` for what it will take, `streaming`
for how the bytes flow, `staging` for why a destination is whole or absent.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from phiquant.calibration.cost import Cost
from phiquant.errors import PhiquantError, RequestError, ResourceError
from phiquant.evaluation.manifest import Manifest
from phiquant.host.cores import cores
from phiquant.host.hashes import BackgroundHashes
from phiquant.host.memory import available_memory
from phiquant.host.staging import check_destination, free_bytes, staged
from phiquant.job.budgets import check_budget, within_budgets
from phiquant.job.evidence import Basis, check_imatrix, check_imatrix_out, make_basis
from phiquant.job.forecast import SPARE, forecast, require_disk, require_memory
from phiquant.job.protection import plan_of
from phiquant.job.rounding import Roundings, calibrated
from phiquant.job.streaming import Outlet, stream
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.outline import has_weights, read_outline
from phiquant.phi.source import Source, locate
from phiquant.phi.survey import Survey, survey
from phiquant.planning.forecast import Forecast
from phiquant.planning.plan import Plan
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.feedback.rounder import Method
from phiquant.recipe import PRECISIONS, CalibrationText, ImatrixFiles, Precision, Recipe
from phiquant.reporting.records import write_records
from phiquant.targets.table import target

UNREAD = (
    "the weights were not read; a tensor with a value beyond FP16's range (65504), which no "
    "published Phi has, would be kept wider or refused"
)


@dataclass(frozen=True, slots=True)
class Made:
    """One artifact: what was asked, what was planned, and where it lies."""

    path: Path
    recipe: Recipe
    plan: Plan


@dataclass(frozen=True, slots=True)
class Prospect:
    """A job that is planned and not begun: one plan a recipe, and what it will take."""

    source: Source
    architecture: Architecture
    surveyed: Survey
    checkpoint: Checkpoint | None
    """None where there is a configuration and no weights."""
    recipes: tuple[Recipe, ...]
    plans: tuple[Plan, ...]
    forecast: Forecast
    basis: Basis = field(default_factory=Basis)
    """What roundings rest on beside the weights, where a recipe asks for it."""
    hashes: BackgroundHashes | None = None
    """Of the weights' files, where they are already being made."""

    def as_json(self) -> dict[str, Any]:
        """The job as `phiquant plan --json` prints it."""
        return {
            "model": self.source.name,
            "weights_read": self.checkpoint is not None,
            "plans": [
                {"recipe": recipe.as_json(), "plan": plan.as_json()}
                for recipe, plan in zip(self.recipes, self.plans, strict=True)
            ],
            "forecast": self.forecast.as_json(),
        }


def plan(
    model: str | Path,
    recipes: Sequence[Recipe],
    on_progress: OnProgress = ignore,
    *,
    revision: str | None = None,
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
) -> Prospect:
    """What `quantize` would make of `model`, to the byte, and what it would take; writes nothing.

    `model` may also be a directory with `config.json` and no weights; the plans then say so.
    Raises RequestError or InputError; see `phiquant.errors`.
    """
    source = locate(str(model), revision)
    if has_weights(source.directory):
        return prepare(source, recipes, on_progress, text=text, imatrix=imatrix)
    found = read_outline(source)
    if any(recipe.budget is not None for recipe in recipes):
        raise RequestError(
            f"bits are allocated by what the weights are, and {source.directory} holds none"
        )
    plans = tuple(
        one.with_notes((UNREAD,)) for one in make_plans(found.architecture, recipes, found.survey)
    )
    expected = forecast(plans, found.architecture.vocabulary_size)
    return Prospect(source, found.architecture, found.survey, None, tuple(recipes), plans, expected)


def quantize(
    model: str | Path,
    recipes: Sequence[Recipe],
    output: Path,
    on_progress: OnProgress = ignore,
    *,
    revision: str | None = None,
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
) -> tuple[Made, ...]:
    """Make one artifact a recipe from one reading of `model`, a directory or a hub id.

    A single artifact becomes `output` itself; several become `output/<target>`. `output`
    appears whole, when all are done, or not at all. Recipes whose quality is not "fast"
    calibrate on `text`, or on the importance matrix that `imatrix` names. Raises RequestError,
    InputError or ResourceError; see `phiquant.errors`.
    """
    check_destination(output)
    source = locate(str(model), revision)
    prospect = prepare(source, recipes, on_progress, text=text, imatrix=imatrix, hashed=True)
    return carry_out(prospect, output, on_progress)


def prepare(
    source: Source,
    recipes: Sequence[Recipe],
    on_progress: OnProgress,
    *,
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
    hashed: bool = False,
) -> Prospect:
    """Read everything of `source` once, and plan. Raises RequestError or InputError.

    With `hashed` the hashes that `carry_out` will want are begun beside that.
    """
    text, imatrix = text or CalibrationText(), imatrix or ImatrixFiles()
    check_imatrix(recipes, text, imatrix)
    checkpoint = Checkpoint.open(source.directory, source.name)
    surveyed, hashes = _examine(checkpoint, recipes, on_progress, hashed)
    architecture = checkpoint.architecture
    plans = make_plans(architecture, recipes, surveyed)
    basis = make_basis(checkpoint, recipes, text, imatrix)
    pairs = list(zip(recipes, plans, strict=True))
    plans = within_budgets(checkpoint, pairs, surveyed, text, on_progress)
    plans = tuple(plan.with_notes(checkpoint.notes) for plan in plans)
    plans = tuple(basis.noted(recipe, plan) for recipe, plan in zip(recipes, plans, strict=True))
    expected = forecast(plans, architecture.vocabulary_size, _cost(architecture, recipes, basis))
    recipes = tuple(recipes)
    return Prospect(
        source, architecture, surveyed, checkpoint, recipes, plans, expected, basis, hashes
    )


def _cost(architecture: Architecture, recipes: Sequence[Recipe], basis: Basis) -> Cost | None:
    """What the calibrated run takes, if there is to be one."""
    count = sum(recipe.quality == "best" for recipe in recipes)
    if not count or basis.sample is None:
        return None
    record = basis.sample.record
    tokens = record.sequences * record.length
    return Cost(architecture, tokens, record.length, count, Method())


def carry_out(
    prospect: Prospect, output: Path, on_progress: OnProgress = ignore
) -> tuple[Made, ...]:
    """Make the artifacts of a job; see `quantize`. Raises ResourceError before it begins if the
    machine has too little memory or disk.
    """
    source, checkpoint = prospect.source, prospect.checkpoint
    if checkpoint is None:
        raise RequestError(
            f"{source.directory} holds a configuration and no weights; quantizing needs both"
        )
    check_destination(output)
    check_imatrix_out(prospect.basis.imatrix, output)
    require_room(prospect, output)
    recipes, plans = prospect.recipes, prospect.plans
    made = tuple(
        Made(output / (recipe.target if len(recipes) > 1 else ""), recipe, plan)
        for recipe, plan in zip(recipes, plans, strict=True)
    )
    asked = [(one.recipe, one.plan) for one in made]
    with (
        _disk_errors(output),
        calibrated(checkpoint, asked, prospect.basis, output, on_progress) as rounding,
        staged(output) as scratch,
        prospect.hashes or BackgroundHashes(checkpoint.mapped) as hashes,
    ):
        inside = [scratch / one.path.relative_to(output) for one in made]
        made, written = _write(checkpoint, made, inside, rounding, on_progress)
        for directory, one, known in zip(inside, made, written, strict=True):
            calibration = prospect.basis.as_json(one.recipe)
            manifest = Manifest.describe(source, hashes.result(), one.recipe, one.plan, calibration)
            write_records(directory, manifest, known)
    return made


def require_room(prospect: Prospect, output: Path) -> None:
    """ResourceError, with what would fit, if the machine has too little memory or disk."""
    require_memory(prospect.forecast, available_memory())
    free = free_bytes(output)
    place = str(output.absolute().parent)
    require_disk(prospect.forecast, free, place, _fitting(prospect, free))


def _fitting(prospect: Prospect, free: int) -> Iterator[str]:
    """Requests that would fit into `free` bytes: the targets at less precision, then each alone."""
    sizes: dict[str, int] = {}
    for word in PRECISIONS:
        asked = [
            replace(one, precision=cast(Precision, word), type=None, budget=None)
            for one in prospect.recipes
        ]
        try:
            plans = make_plans(prospect.architecture, asked, prospect.surveyed)
        except PhiquantError:
            continue
        sizes[f"--precision {word}"] = sum(one.nbytes + SPARE for one in plans)
    if len(prospect.recipes) > 1:
        for one in prospect.plans:
            sizes[f"--to {one.target} alone"] = one.nbytes + SPARE
    for words, needed in sizes.items():
        if needed <= free:
            yield f"{words} ({needed / 1e9:.2f} GB)"


def make_plans(
    architecture: Architecture, recipes: Sequence[Recipe], surveyed: Survey
) -> tuple[Plan, ...]:
    """A plan for each of `recipes`, which must be for different targets."""
    names = [recipe.target for recipe in recipes]
    if not names or len(set(names)) != len(names):
        raise RequestError(f"expected one or more different targets, found {', '.join(names)!r}")
    if len({recipe.rescaling for recipe in recipes if recipe.quality == "best"}) > 1:
        raise RequestError(
            "artifacts of the best quality in one job are rounded from one network, re-scaled or "
            "not; make those that are to keep their channels in a job of their own"
        )
    for recipe in recipes:
        _check_options(recipe)
        check_budget(recipe)
    return tuple(plan_of(recipe, architecture, surveyed) for recipe in recipes)


def _check_options(recipe: Recipe) -> None:
    known = target(recipe.target).options
    given = [name for name, _ in recipe.options]
    for name in given:
        if name not in known:
            choice = f"it has {', '.join(known)}" if known else "it has none"
            raise RequestError(f"{recipe.target} has no option {name!r}; {choice}")
        if given.count(name) > 1:
            raise RequestError(f"the option {name} is given twice for {recipe.target}")


def _examine(
    checkpoint: Checkpoint, recipes: Sequence[Recipe], on_progress: OnProgress, hashed: bool
) -> tuple[Survey, BackgroundHashes | None]:
    """Look at the weights, and then begin to hash them, while another thread prepares what the
    targets need besides; that one takes longest, and is left a core.
    """
    seen = 0

    def advance(nbytes: int) -> None:
        nonlocal seen
        seen += nbytes
        on_progress(Progress("checking", seen, checkpoint.nbytes))

    with ThreadPoolExecutor(1) as aside:
        prepared = [aside.submit(target(recipe.target).prepare, checkpoint) for recipe in recipes]
        surveyed = survey(checkpoint, advance, threads=max(1, cores() - 1))
        hashes = BackgroundHashes(checkpoint.mapped) if hashed else None
        for future in prepared:
            future.result()
    return surveyed, hashes


def _write(
    checkpoint: Checkpoint,
    made: Sequence[Made],
    directories: Sequence[Path],
    rounding: Roundings,
    on_progress: OnProgress,
) -> tuple[tuple[Made, ...], list[Mapping[str, str]]]:
    """Write all artifacts.

    Their plans come back with what the writers had to note, and the hashes of their large files.
    """
    noted, writers, outlets = [], [], []
    with ExitStack() as stack:
        for one, directory in zip(made, directories, strict=True):
            directory.mkdir(exist_ok=True)
            into = target(one.recipe.target)
            writer = stack.enter_context(into.writer(one.plan, checkpoint, one.recipe, directory))
            outlets += [Outlet(row, rounding(one.recipe, row), writer) for row in one.plan.rows]
            noted.append(replace(one, plan=one.plan.with_notes(writer.notes)))
            writers.append(writer)
        stream(checkpoint, outlets, on_progress)
    return tuple(noted), [writer.hashes for writer in writers]


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"the disk at {output.absolute().parent} filled up, and nothing was left behind; "
                "make room, or choose another destination with -o"
            ) from error
        raise
