"""The main job: checkpoint → survey → plan → one reading → artifacts.

`prospect` does all that can be done before the first byte is written, `carry_out` the rest, and
`quantize` both. See `streaming` for how the bytes flow, `host.staging` for why a destination is
whole or absent.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import RequestError, ResourceError
from phiquant.evaluation.manifest import Manifest
from phiquant.host.announcements import announced
from phiquant.host.hashes import BackgroundHashes
from phiquant.host.kinds import LISTENER, PLACE, instance, optional
from phiquant.host.staging import held, staged
from phiquant.job.order import order
from phiquant.job.prospect import Prospect, prepare
from phiquant.job.room import require_room
from phiquant.job.rounding import Job, Roundings, calibrated
from phiquant.job.streaming import Outlet, stream
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.progress import OnProgress, ignore
from phiquant.recipe import ImatrixFiles, Recipe
from phiquant.reporting.records import write_records
from phiquant.targets.table import target

PROSPECT = instance(Prospect, "a Prospect", "give what `plan` returned")


@dataclass(frozen=True, slots=True)
class Made:
    """One artifact: what was asked, what was planned, and where it lies."""

    path: Path
    recipe: Recipe
    plan: Plan

    def as_json(self) -> dict[str, Any]:
        """The artifact as `phiquant quantize --json` lists it."""
        return {
            "path": str(self.path),
            "recipe": self.recipe.as_json(),
            "plan": self.plan.as_json(),
        }


def quantize(
    model: str | os.PathLike[str],
    recipes: Recipe | Sequence[Recipe],
    output: str | os.PathLike[str],
    on_progress: OnProgress = ignore,
    *,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
) -> tuple[Made, ...]:
    """Make one artifact a recipe from one reading of `model`.

    `model` is a directory, the id or the address of a model on the Hugging Face hub, a `file://`
    address, or the name of a published Phi; `adapter` is a LoRA adapter over it, a directory or a
    model on the hub. A single artifact becomes `output` itself; several
    become `output/<target>`. `output` appears whole, when all are done, or not at all. Recipes
    whose quality is "balanced" or "best" calibrate on `text`, or on the importance matrix that
    `imatrix` names. Raises RequestError, InputError or ResourceError; see `phiquant.errors`.
    """
    PLACE.check(model=model, output=output)
    optional(PLACE).check(adapter=adapter)
    LISTENER.check(on_progress=on_progress)
    asked = order(recipes, text, imatrix)
    asked.check_places(Path(output))
    prospect = prepare(model, asked, on_progress, revision=revision, adapter=adapter)
    return carry_out(prospect, output, on_progress)


def carry_out(
    prospect: Prospect, output: str | os.PathLike[str], on_progress: OnProgress = ignore
) -> tuple[Made, ...]:
    """Make the artifacts of a job; see `quantize`. Raises ResourceError before it begins if the
    machine has too little memory or disk.
    """
    PROSPECT.check(prospect=prospect)
    PLACE.check(output=output)
    LISTENER.check(on_progress=on_progress)
    source, checkpoint, output = prospect.source, prospect.checkpoint, Path(output)
    if checkpoint is None:
        raise RequestError(
            f"{source.directory} holds a configuration and no weights; quantizing needs both"
        )
    prospect.order.check_places(output)
    with announced(prospect.forecast.memory) as promised:
        require_room(prospect, output, promised)
        return _make(prospect, checkpoint, output, on_progress)


def _make(
    prospect: Prospect, checkpoint: Checkpoint, output: Path, on_progress: OnProgress
) -> tuple[Made, ...]:
    """Make the artifacts, for which there is room."""
    source, recipes, plans = prospect.source, prospect.recipes, prospect.plans
    made = tuple(
        Made(output / (recipe.target if len(recipes) > 1 else ""), recipe, plan)
        for recipe, plan in zip(recipes, plans, strict=True)
    )
    asked = [(artifact.recipe, artifact.plan) for artifact in made]
    with (
        _disk_errors(output),
        held(output) as place,
        BackgroundHashes(checkpoint.opened.values()) as hashes,
        calibrated(
            checkpoint, asked, prospect.evidence, Job(place, hashes), on_progress
        ) as rounding,
        staged(place) as scratch,
    ):
        inside = [scratch / artifact.path.relative_to(output) for artifact in made]
        written = _write(checkpoint, made, inside, rounding, on_progress)
        for directory, artifact, known in zip(inside, made, written, strict=True):
            calibration = prospect.evidence.as_json(artifact.recipe, artifact.plan)
            manifest = Manifest.describe(
                source,
                hashes.result(),
                artifact.recipe,
                artifact.plan,
                calibration,
                adapter=checkpoint.adapter,
            )
            write_records(directory, manifest, known)
        checkpoint.check_unchanged()
    return made


def _write(
    checkpoint: Checkpoint,
    made: Sequence[Made],
    directories: Sequence[Path],
    rounding: Roundings,
    on_progress: OnProgress,
) -> list[Mapping[str, str]]:
    """Write all artifacts; the hashes of the large files of each."""
    writers, outlets = [], []
    with ExitStack() as stack:
        for artifact, directory in zip(made, directories, strict=True):
            directory.mkdir(exist_ok=True)
            into = target(artifact.recipe.target)
            writer = into.writer(artifact.plan, checkpoint, artifact.recipe.form, directory)
            stack.enter_context(writer)
            outlets += [
                Outlet(row, rounding(artifact.recipe, row), writer) for row in artifact.plan.rows
            ]
            writers.append(writer)
        stream(checkpoint, outlets, on_progress)
    return [writer.hashes for writer in writers]


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = ResourceError(_full(error, output.absolute().parent))
        for note in getattr(error, "__notes__", ()):
            full.add_note(note)
        raise full from error


def _full(error: OSError, place: Path) -> str:
    """Which disk filled up: the one at `place`, or that of temporary files."""
    file = Path(error.filename).absolute() if isinstance(error.filename, str) else place
    if file.is_relative_to(place):
        return f"the disk at {place} filled up; make room, or choose another `output`"
    return f"the disk at {file.parent} filled up; make room, or set TMPDIR to another directory"
