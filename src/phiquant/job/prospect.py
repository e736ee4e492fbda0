"""`Prospect`: a job that is planned and not begun.

In the order of what it costs: the order is checked, the configuration alone is read and planned,
and only then are weights fetched, surveyed and planned for good. See `planning` for what is
decided, `forecast` for what it will take.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.cost import Cost
from phiquant.calibration.sums_cost import SumsCost
from phiquant.errors import InputError, RequestError
from phiquant.evaluation.manifest import read_manifest
from phiquant.host.cores import cores
from phiquant.host.kinds import LISTENER, PLACE, optional
from phiquant.host.shown import shown
from phiquant.job.budgets import check_budgets, within_budgets
from phiquant.job.evidence import Evidence, gathered_sizes, read_evidence
from phiquant.job.forecast import forecast
from phiquant.job.magnitudes import check_magnitudes
from phiquant.job.order import Order, order
from phiquant.job.protection import plan_of
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.family import find_outline
from phiquant.phi.model_name import read_model_name
from phiquant.phi.opening import open_model
from phiquant.phi.outline import Outline, has_weights
from phiquant.phi.source import Source, locate
from phiquant.phi.survey import Survey, survey
from phiquant.planning.forecast import Forecast
from phiquant.planning.plan import Plan
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.feedback.rounder import Method
from phiquant.recipe import ImatrixFiles, Recipe
from phiquant.targets.table import target

UNREAD = (
    "the weights were not read; a tensor with a value beyond FP16's range (65504), which no "
    "published Phi has, would be kept wider or refused"
)


@dataclass(frozen=True, slots=True)
class Prospect:
    """A job that is planned and not begun: one plan a recipe, and what it will take."""

    source: Source
    architecture: Architecture
    surveyed: Survey
    checkpoint: Checkpoint | None
    """None where there is a configuration and no weights."""
    order: Order
    plans: tuple[Plan, ...]
    forecast: Forecast
    evidence: Evidence = field(default_factory=Evidence)
    """What roundings rest on beside the weights, where a recipe asks for it."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """What was asked for, in the order of the plans."""
        return self.order.recipes

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
    model: str | os.PathLike[str],
    recipes: Recipe | Sequence[Recipe],
    on_progress: OnProgress = ignore,
    *,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
) -> Prospect:
    """What `quantize` would make of `model`, to the byte, and what it would take; writes nothing.

    `model` and `adapter` are named as in `quantize`. The former may also be a directory with
    `config.json` and no weights, and the weights of a model on the hub are not fetched for a plan
    unless a budget or an adapter needs them; the plans then say so. Raises RequestError or
    InputError; see `phiquant.errors`.
    """
    PLACE.check(model=model)
    optional(PLACE).check(adapter=adapter)
    LISTENER.check(on_progress=on_progress)
    asked = order(recipes, text, imatrix)
    with _made_told_apart(model):
        outline = find_outline(model, revision)
    plans = _of_outline(outline, asked)
    if has_weights(outline.source.directory) or _needs_weights(asked, outline, adapter):
        return prepare(model, asked, on_progress, revision=revision, adapter=adapter)
    plans = tuple(unread.with_notes((UNREAD,)) for unread in plans)
    architecture = outline.architecture
    gathering = [SumsCost(architecture, *size) for size in gathered_sizes(asked, plans)]
    expected = forecast(plans, architecture.vocabulary_size, gathering=gathering)
    expected = replace(expected, calibration="best" not in asked.qualities)
    return Prospect(outline.source, architecture, outline.survey, None, asked, plans, expected)


def _needs_weights(asked: Order, outline: Outline, adapter: str | os.PathLike[str] | None) -> bool:
    """Whether the hub must be asked for weights; RequestError where there is none to ask."""
    budgets = any(recipe.budget is not None for recipe in asked.recipes)
    if not budgets and adapter is None:
        return False
    if outline.source.hub_id is None:
        why = (
            "bits are allocated by what the weights are"
            if budgets
            else "an adapter changes weights"
        )
        raise RequestError(f"{why}, and {outline.source.directory} holds none")
    return True


def prepare(
    model: str | os.PathLike[str],
    asked: Order,
    on_progress: OnProgress = ignore,
    *,
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> Prospect:
    """Read everything of `model` once, and plan. Raises RequestError or InputError."""
    with _made_told_apart(model):
        outline = find_outline(model, revision)
    _of_outline(outline, asked)  # refuses before the download
    source = _source(model, outline, revision)
    with _made_told_apart(model):
        checkpoint = open_model(source, adapter)
    surveyed, notes = _examine(checkpoint, asked.recipes, on_progress)
    architecture = checkpoint.architecture
    plans = make_plans(architecture, asked.recipes, surveyed)
    evidence = read_evidence(checkpoint, asked, plans)
    pairs = list(zip(asked.recipes, plans, strict=True))
    glance = () if evidence.glance is None else evidence.glance.tokens
    plans = within_budgets(checkpoint, pairs, surveyed, asked.text, on_progress, glance=glance)
    plans = tuple(
        evidence.noted(recipe, plan.with_notes(checkpoint.notes)).with_notes(said)
        for recipe, plan, said in zip(asked.recipes, plans, notes, strict=True)
    )
    cost = _cost(architecture, asked.recipes, evidence)
    gathering = [
        SumsCost(architecture, len(sequences), len(sequences[0]))
        for sequences in evidence.sequences(pairs).values()
    ]
    expected = forecast(plans, architecture.vocabulary_size, cost, gathering)
    return Prospect(source, architecture, surveyed, checkpoint, asked, plans, expected, evidence)


def _source(model: str | os.PathLike[str], outline: Outline, revision: str | None) -> Source:
    """The model with its weights, at the commit whose configuration was read."""
    named = read_model_name(model, revision)
    if named.directory is not None or named.hub_id is None:
        return locate(model, revision)
    # By its id: an address may name a branch, which the commit would seem to contradict.
    return locate(named.hub_id, outline.source.revision or named.revision)


def make_plans(
    architecture: Architecture, recipes: Sequence[Recipe], surveyed: Survey
) -> tuple[Plan, ...]:
    """A plan for each of `recipes`, budgets left aside. Raises RequestError or ConfigError."""
    plans = tuple(plan_of(recipe, architecture, surveyed) for recipe in recipes)
    for recipe, made in zip(recipes, plans, strict=True):
        check_magnitudes(recipe, made, surveyed)
    return plans


@contextmanager
def _made_told_apart(model: str | os.PathLike[str]) -> Iterator[None]:
    """Say of a directory that will not do as a checkpoint that phiquant itself made it, if so."""
    try:
        yield
    except InputError as error:
        directory = Path(model)
        record = read_manifest(directory) if directory.is_dir() else None
        if record is None:
            raise
        name = record.source.get("hub_id") or record.source.get("name")
        raise InputError(
            f"expected a checkpoint, found in {directory} an artifact that phiquant made of "
            f"{shown(name)}; give that"
        ) from error


def _of_outline(outline: Outline, asked: Order) -> tuple[Plan, ...]:
    """The plans as far as the configuration tells. RequestError for budgets that are too small."""
    plans = make_plans(outline.architecture, asked.recipes, outline.survey)
    pairs = list(zip(asked.recipes, plans, strict=True))
    check_budgets(pairs, outline.architecture, outline.survey)
    return plans


def _cost(architecture: Architecture, recipes: Sequence[Recipe], evidence: Evidence) -> Cost | None:
    """What the calibrated run takes, if there is to be one."""
    count = sum(recipe.quality == "best" for recipe in recipes)
    if not count or evidence.sample is None:
        return None
    record = evidence.sample.record
    tokens = record.sequences * record.length
    return Cost(architecture, tokens, record.length, count, Method())


def _examine(
    checkpoint: Checkpoint, recipes: Sequence[Recipe], on_progress: OnProgress
) -> tuple[Survey, list[tuple[str, ...]]]:
    """Look at the weights, while another thread prepares what the targets need besides.

    Returns the survey, and the sentences that each target has to say.
    """
    seen = 0

    def advance(nbytes: int) -> None:
        nonlocal seen
        seen += nbytes
        on_progress(Progress("checking", seen, checkpoint.nbytes))

    with ThreadPoolExecutor(1) as aside:
        prepared = [aside.submit(target(recipe.target).prepare, checkpoint) for recipe in recipes]
        surveyed = survey(checkpoint, advance, threads=max(1, cores() - 1))
        notes = [future.result() for future in prepared]
    return surveyed, notes
