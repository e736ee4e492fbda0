"""The main job: checkpoint → survey → plan → one reading → artifacts.

See `planning` for what is decided, `streaming` for how the bytes flow, `staging` for why a
destination is whole or absent.
"""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from phiquant.basis import check_imatrix, make_basis
from phiquant.budgets import check_budget, within_budgets
from phiquant.errors import RequestError, ResourceError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.hashes import hash_files
from phiquant.phi.source import locate
from phiquant.phi.survey import Survey, survey
from phiquant.planning.plan import Plan
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.recipe import CalibrationText, ImatrixFiles, Recipe
from phiquant.reporting.records import write_records
from phiquant.rounding import Roundings, calibrated
from phiquant.staging import check_destination, free_bytes, staged
from phiquant.streaming import Outlet, stream
from phiquant.targets.table import target

SPARE = 64 << 20
"""Bytes of disk beyond an artifact's tensors: metadata, vocabulary, tokenizer files, card."""


@dataclass(frozen=True, slots=True)
class Made:
    """One artifact: what was asked, what was planned, and where it lies."""

    path: Path
    recipe: Recipe
    plan: Plan


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
    text, imatrix = text or CalibrationText(), imatrix or ImatrixFiles()
    check_destination(output)
    check_imatrix(recipes, text, imatrix, output)
    source = locate(str(model), revision)
    checkpoint = Checkpoint.open(source.directory, source.name)
    with ThreadPoolExecutor(1) as aside:  # the survey leaves the interpreter free to parse JSON
        tokenizer = aside.submit(lambda: checkpoint.tokenizer)
        surveyed = _survey(checkpoint, on_progress)
        tokenizer.result()
    plans = make_plans(checkpoint, recipes, surveyed)
    basis = make_basis(checkpoint, recipes, text, imatrix)
    pairs = list(zip(recipes, plans, strict=True))
    plans = within_budgets(checkpoint, pairs, surveyed, text, on_progress)
    made = tuple(
        Made(
            output / (recipe.target if len(recipes) > 1 else ""), recipe, basis.noted(recipe, plan)
        )
        for recipe, plan in zip(recipes, plans, strict=True)
    )
    asked = [(one.recipe, one.plan) for one in made]
    _check_disk(plans, output)
    with (
        _disk_errors(output),
        calibrated(checkpoint, asked, basis, output, on_progress) as rounding,
        staged(output) as scratch,
        _hashing(checkpoint.files) as hashes,
    ):
        inside = [scratch / one.path.relative_to(output) for one in made]
        made = _write(checkpoint, made, inside, rounding, on_progress)
        for directory, one in zip(inside, made, strict=True):
            write_records(directory, source, hashes.result(), one.recipe, one.plan)
    return made


@contextmanager
def _hashing(paths: Sequence[Path]) -> Iterator[Future[dict[str, str]]]:
    """Hash files in a thread alongside the block; leaving it by an error stops the thread."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(hash_files, paths, stop)
        except BaseException:
            stop.set()
            raise


def make_plans(
    checkpoint: Checkpoint, recipes: Sequence[Recipe], surveyed: Survey
) -> tuple[Plan, ...]:
    """A plan for each of `recipes`, which must be for different targets."""
    names = [recipe.target for recipe in recipes]
    if not names or len(set(names)) != len(names):
        raise RequestError(f"expected one or more different targets, found {', '.join(names)!r}")
    for recipe in recipes:
        _check_options(recipe)
        check_budget(recipe)
    return tuple(
        target(recipe.target).plan(checkpoint.architecture, surveyed, recipe) for recipe in recipes
    )


def _check_options(recipe: Recipe) -> None:
    known = target(recipe.target).options
    given = [name for name, _ in recipe.options]
    for name in given:
        if name not in known:
            choice = f"it has {', '.join(known)}" if known else "it has none"
            raise RequestError(f"{recipe.target} has no option {name!r}; {choice}")
        if given.count(name) > 1:
            raise RequestError(f"the option {name} is given twice for {recipe.target}")


def _survey(checkpoint: Checkpoint, on_progress: OnProgress) -> Survey:
    seen = 0

    def advance(nbytes: int) -> None:
        nonlocal seen
        seen += nbytes
        on_progress(Progress("checking", seen, checkpoint.nbytes))

    return survey(checkpoint, advance)


def _write(
    checkpoint: Checkpoint,
    made: Sequence[Made],
    directories: Sequence[Path],
    rounding: Roundings,
    on_progress: OnProgress,
) -> tuple[Made, ...]:
    """Write all artifacts; their plans come back with what the writers had to note."""
    noted, outlets = [], []
    with ExitStack() as stack:
        for one, directory in zip(made, directories, strict=True):
            directory.mkdir(exist_ok=True)
            into = target(one.recipe.target)
            writer = stack.enter_context(into.writer(one.plan, checkpoint, one.recipe, directory))
            outlets += [Outlet(row, rounding(one.recipe, row), writer) for row in one.plan.rows]
            noted.append(replace(one, plan=one.plan.with_notes(writer.notes)))
        stream(checkpoint, outlets, on_progress)
    return tuple(noted)


def _check_disk(plans: Sequence[Plan], output: Path) -> None:
    needed = sum(plan.nbytes + SPARE for plan in plans)
    free = free_bytes(output)
    if needed > free:
        raise ResourceError(
            f"the artifacts need {needed / 1e9:.2f} GB of disk at {output.absolute().parent}, "
            f"{free / 1e9:.2f} GB are free; make room, or choose another destination with -o"
        )


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
