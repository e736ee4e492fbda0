"""Plans within the budgets that recipes set: what is offered, what it would cost, what is best.

The first sequences of a sample give the sensitivities (`calibration.analysis`). Each target says
how each tensor may be stored; a few rows of every tensor rounded in each of these ways give the
effect (`calibration.sensitivity`), and `planning.allocation` the optimum. It is checked by running
the reference over the rounded weights of the plan on sequences that were held back; a plan for a
budget of divergence is corrected until it holds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phiquant.calibration.analysis import (
    ANCHOR,
    WINDOW,
    Analysis,
    analyse,
    analysis_windows,
)
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.divergence import Candidates, divergences
from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.sensitivity import grid_errors, sampled_rows
from phiquant.calibration.text import sample_of
from phiquant.errors import InputError
from phiquant.job.protection import plan_of, protects_values
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network.parts import VALUES
from phiquant.phi.reference import Reference
from phiquant.phi.survey import Survey
from phiquant.phi.weights import Floats, Tokens, WeightSource
from phiquant.planning.allocation import (
    Allocation,
    Offer,
    Offers,
    check_bits,
    check_bytes,
    checked,
    until_within,
    within_bits,
    within_bytes,
)
from phiquant.planning.parts import joined, parts_in, taken_apart
from phiquant.planning.plan import Plan, PlanRow
from phiquant.progress import OnProgress, Progress, ignore
from phiquant.quantization.feedback.means import encode_for
from phiquant.quantization.grid import Grid
from phiquant.quantization.inputs import Inputs
from phiquant.quantization.rescaling import Rescaled, even_factors
from phiquant.recipe import Recipe
from phiquant.targets.table import target

HELD_BACK = 16
"""Windows by which plans are checked."""

CHECKED_AS: Mapping[str, str] = {
    "data-free": "",
    "fast": "",
    "balanced": ", rounded by the inputs of a few windows",
    "best": ", rounded as balanced by the inputs of a few windows",
}
"""How the weights that a plan is checked by differ from those that each quality stores."""

Rounded = Callable[[Recipe, Plan], WeightSource]
"""The weights that an artifact of this plan would hold."""


def within_budgets(
    checkpoint: Checkpoint,
    asked: Sequence[tuple[Recipe, Plan]],
    survey: Survey,
    text: CalibrationText,
    on_progress: OnProgress = ignore,
    *,
    glance: Sequence[Tokens] = (),
) -> tuple[Plan, ...]:
    """The plans, those of recipes with a budget allocated; one analysis serves all of them.

    `glance` is what recipes of the quality "fast" look at, where there are any.
    A recipe of the best quality whose form divides bits among layers itself (by a ratio) is planned
    anew, with the sensitivities. Recipes that want neither cost nothing.
    """
    if not any(_wants_analysis(recipe) for recipe, _ in asked):
        return tuple(plan for _, plan in asked)
    size = analysis_windows(checkpoint.architecture) + HELD_BACK
    sample = sample_of(checkpoint.tokenizer, replace(text, sequences=size, length=WINDOW))
    if len(sample.tokens) < 2 and any(recipe.budget is not None for recipe, _ in asked):
        raise InputError(
            f"expected at least two windows of {WINDOW} tokens in {sample.record.name}, one to "
            "measure on and one to check on, found one; give more text"
        )
    model = analyse_for(checkpoint, survey, sample.tokens, on_progress)
    fast = any(recipe.quality == "fast" and recipe.budget is not None for recipe, _ in asked)
    looked_at = {"fast": glanced(model, glance)} if fast else {}
    plans = []
    for recipe, plan in asked:
        if recipe.budget is not None:
            seen = looked_at.get(recipe.quality, model)
            plans.append(allocate(recipe, plan, seen, on_progress=on_progress))
        elif _wants_analysis(recipe):
            unprotected = not protects_values(recipe, checkpoint.architecture)
            measured = model.measured(values=unprotected)
            made = plan_of(recipe, checkpoint.architecture, measured)
            plans.append(made)
        else:
            plans.append(plan)
    return tuple(plans)


def check_budgets(
    asked: Sequence[tuple[Recipe, Plan]], architecture: Architecture, survey: Survey
) -> None:
    """RequestError for a size that no plan of the recipe's target has; nothing is measured."""
    for recipe, plan in asked:
        budget, into = recipe.budget, target(recipe.target)
        if budget is None or budget.max_kl is not None:
            continue
        choices = into.choices_for(recipe.form, survey)
        apart = taken_apart(plan, architecture, choices) if into.apart else plan
        offers = {
            row.output: [Offer(choice, 0.0) for choice in offered]
            for row in apart.rows
            if (offered := choices(row))
        }
        if budget.max_bytes is not None:
            check_bytes(apart, offers, budget.max_bytes)
        if budget.bits_per_weight is not None:
            check_bits(apart, offers, budget.bits_per_weight)


def _wants_analysis(recipe: Recipe) -> bool:
    return recipe.budget is not None or (recipe.quality == "best" and recipe.form.divides)


@dataclass(frozen=True)
class Analysed:
    """A model with what was found out about it."""

    source: WeightSource
    survey: Survey
    analysis: Analysis
    held_back: Sequence[Tokens]
    """Windows of text that the analysis has not seen."""
    inputs: Mapping[str, Inputs]
    """What roundings weigh errors by; errors are measured by those of the analysis."""

    def measured(self, *, values: bool = True) -> Survey:
        """The survey with the sensitivities in it, those of a fused weight's parts added up.

        Without `values`, those of attention do not count.
        """
        sensitivities: dict[str, float] = {}
        for part in self.source.architecture.network.matrices:
            nats = self.analysis.sensitivities[part.name].divergence
            counts = values or part.word != VALUES
            sensitivities[part.weight.name] = sensitivities.get(part.weight.name, 0.0) + (
                nats if counts else 0
            )
        return replace(self.survey, sensitivities=sensitivities)

    def rescaled(self) -> "Analysed":
        """The same model as all qualities but "data-free" round it.

        Sensitivities stay: a re-scaled layer's outputs are what they were.
        """
        network = Rescaled(self.source, even_factors(self.source, self.inputs))

        def folded(inputs: Mapping[str, Inputs]) -> dict[str, Inputs]:
            return {name: network.fold(name).of_inputs(each) for name, each in inputs.items()}

        analysis = replace(self.analysis, inputs=folded(self.analysis.inputs))
        return replace(self, source=network, analysis=analysis, inputs=folded(self.inputs))


def analyse_for(
    source: WeightSource,
    survey: Survey,
    windows: Sequence[Tokens],
    on_progress: OnProgress = ignore,
) -> Analysed:
    """Measure sensitivities on the first of `windows`, and hold the others back."""
    count = max(1, min(analysis_windows(source.architecture), len(windows) // 2))
    analysis = analyse(source, windows[:count], on_progress, sensitivities=True)
    return Analysed(source, survey, analysis, windows[count:], analysis.inputs)


def glanced(model: Analysed, glance: Sequence[Tokens]) -> Analysed:
    """The model with its weights to be rounded by what `glance` shows, as the writing will."""
    sums = InputSums()
    for _ in sums.gather(model.source, glance):
        pass
    return replace(model, inputs=sums.inputs())


def allocate(
    recipe: Recipe,
    plan: Plan,
    model: Analysed,
    rounded: Rounded | None = None,
    on_progress: OnProgress = ignore,
) -> Plan:
    """`plan` with the optimum of what its target offers within the recipe's budget.

    `rounded` gives the weights by which it is checked; default, `by_rows`: what "data-free" stores
    and, of a model that is `glanced`, "fast"; what "balanced" would if it had looked at the sample
    of the analysis only; and for "best" each row as "balanced" rounds it. Raises RequestError for a
    budget that cannot be kept.
    """
    budget = recipe.budget
    assert budget is not None
    if _weighed(recipe) and recipe.rescaling:
        model = model.rescaled()
    whole, into = plan, target(recipe.target)

    choices = into.choices_for(recipe.form, model.survey)
    if into.apart:
        plan = taken_apart(plan, model.source.architecture, choices)
    offers = offers_for(recipe, plan, model, on_progress)
    evaluation = Evaluation(model.source, model.held_back, on_progress)
    weights_of = rounded or by_rows(model)

    def evaluate(tried: Plan) -> float:
        return evaluation(weights_of(recipe, tried))

    if budget.max_kl is not None:
        allocation = until_within(plan, offers, budget.max_kl, evaluate)
    elif budget.max_bytes is not None:
        allocation = checked(within_bytes(plan, offers, budget.max_bytes), evaluate)
    else:
        assert budget.bits_per_weight is not None
        allocation = checked(within_bits(plan, offers, budget.bits_per_weight), evaluate)
    return _named(recipe, replace(allocation, plan=joined(allocation.plan, whole, choices)))


def offers_for(
    recipe: Recipe, plan: Plan, model: Analysed, on_progress: OnProgress = ignore
) -> Offers:
    """Every way in which the recipe's target may store each tensor, with its predicted effect."""
    into, offers = target(recipe.target), {}
    for done, row in enumerate(plan.rows, 1):
        choices = into.choices(row, recipe.form, model.survey)
        if choices:
            grids = {choice.grid: into.grids[choice.grid] for choice in choices}
            effects = _effects(row, grids, recipe, model)
            offers[row.output] = [Offer(choice, effects[choice.grid]) for choice in choices]
        on_progress(Progress("weighing choices", done, len(plan.rows), "tensors"))
    return offers


def _effects(
    row: PlanRow, grids: Mapping[str, Grid], recipe: Recipe, model: Analysed
) -> dict[str, float]:
    """What each grid does to the output: those of the matrices that the row holds, added up."""
    assert row.source is not None
    inputs, seen = model.analysis.inputs.get(row.source), model.inputs.get(row.source)
    diagonal = None if inputs is None else inputs.squares
    weights = None if seen is None or not _weighed(recipe) else seen.squares
    effects = dict.fromkeys(grids, 0.0)
    for part in parts_in(row, model.source.architecture):
        rows = sampled_rows(model.source, part)
        errors = grid_errors(rows, diagonal, grids, weights)
        for name, error in errors.items():
            effects[name] += model.analysis.sensitivities[part.name].effect(error)
    return effects


def _named(recipe: Recipe, allocation: Allocation) -> Plan:
    type = target(recipe.target).type_of(allocation.plan.rows)
    words = f"bits allocated by measured sensitivity ({ANCHOR.bits}-bit rounding of each matrix): "
    words += f"{allocation.predicted:.3g} nats a token predicted, {allocation.measured:.3g} "
    words += f"measured on text held back{CHECKED_AS[recipe.quality]}"
    words += f"; {type} is the type of most weights, not of all"
    return replace(allocation.plan, type=type).with_notes((words,))


class Evaluation:
    """The mean divergence of rounded weights from the original's, over `windows`."""

    def __init__(
        self, source: WeightSource, windows: Sequence[Tokens], on_progress: OnProgress = ignore
    ) -> None:
        self._source, self._windows = source, list(windows)
        self._on_progress = on_progress
        self._hidden: Floats | None = None

    def __call__(self, rounded: WeightSource) -> float:
        """Nats a token."""
        if self._hidden is None:
            self._hidden = self._states(self._source)
        states = Candidates(self._states(rounded)[None], [rounded])
        return float(divergences(self._source, self._hidden, states).mean())

    def _states(self, source: WeightSource) -> Floats:
        reference, layers = Reference(source), source.architecture.layers
        hidden, stack = reference.embedded(self._windows)
        for layer in range(layers):
            reference.layer(layer, hidden, stack)
            self._on_progress(Progress("evaluating", layer + 1, layers, "layers"))
        return reference.normed(hidden)


def _weighed(recipe: Recipe) -> bool:
    """Whether rounding weighs errors by how much each input is used."""
    return recipe.quality != "data-free"


def by_rows(model: Analysed) -> Rounded:
    """Rounding each row by itself as it is read; by what its inputs are worth, unless
    "data-free".
    """

    def rounded(recipe: Recipe, plan: Plan) -> WeightSource:
        inputs = model.inputs if _weighed(recipe) else {}
        return RoundedWeights(model.source, recipe, plan, inputs)

    return rounded


class RoundedWeights:
    """The weights of `source` as an artifact of `plan` would hold them.

    `inputs` are those of the matrices that it names.
    """

    def __init__(
        self,
        source: WeightSource,
        recipe: Recipe,
        plan: Plan,
        inputs: Mapping[str, Inputs] | None = None,
    ) -> None:
        self._source, self._inputs = source, inputs or {}
        self._grids = target(recipe.target).grids
        self._rows = plan.by_source

    @property
    def architecture(self) -> Architecture:
        """The dimensions, unchanged."""
        return self._source.architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a weight, rounded."""
        weights = self._source.weight(name, first, last)
        matrix = weights.reshape(-1, weights.shape[-1])
        rounded = np.empty_like(matrix)
        for row in self._rows[name]:
            grid, here = self._grids[row.grid], row.overlap(first, len(matrix))
            if here.start < here.stop:
                parts = encode_for(grid, matrix[here], self._inputs.get(name))
                rounded[here] = grid.decode(parts, matrix.shape[1])
        return rounded.reshape(weights.shape)
