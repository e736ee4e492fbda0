"""`Evidence`: what roundings rest on beside the weights, a sample of text or an importance matrix.

`fast` glances at some dozens of tokens of the shipped text, from several kinds: how much each
input is used shows at once (benchmarks/results/tokens.md has the loss by the number of tokens).
`best` needs second moments of what a layer takes in the quantized network, which only a text can
give. `balanced` needs mean squares, which a text gives and an importance matrix has, and takes
means too, which few matrices have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.text import CalibrationSample, SampleRecord, glance_of, sample_of
from phiquant.job.order import Order
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.weights import Tokens
from phiquant.planning.plan import Plan
from phiquant.recipe import Recipe
from phiquant.targets.importance import Importance
from phiquant.targets.table import importance_files, target

GLANCE = (8, 8)
"""Sequences of the shipped text that `fast` looks at, and tokens in each."""

BALANCED_SEQUENCES = 32
"""Sequences that mean squares are taken over: they settle long before full moments do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What `fast` glances at; the sample, where another quality needs it; the importance matrix
    that was read; where to write one.
    """

    glance: CalibrationSample | None = None
    sample: CalibrationSample | None = None
    importance: Importance | None = None
    imatrix: Path | None = None
    text: CalibrationText = field(default_factory=CalibrationText)
    """The text that was asked for."""

    def as_json(self, recipe: Recipe, plan: Plan) -> dict[str, Any] | None:
        """What `recipe` was carried out by beside the weights, for its record; None if nothing."""
        if recipe.quality == "data-free" and recipe.budget is None:
            return None
        if recipe.quality == "fast" and recipe.budget is None:
            glance = self.glance_for(recipe, plan)
            if glance is None:
                return None
            return _record(CalibrationText(None, glance.record.sequences, glance.record.length))
        matrix = self.importance if recipe.quality == "balanced" else None
        return _record(self.text, None if matrix is None else matrix.name)

    def glance_for(self, recipe: Recipe, plan: Plan) -> CalibrationSample | None:
        """What the rounding of `recipe` glances at; None where nothing is rounded to codes."""
        return self.glance if glances(recipe, plan) else None

    def sequences(self, asked: Sequence[tuple[Recipe, Plan]]) -> dict[str, Sequence[Tokens]]:
        """The text that sums of inputs are to be gathered over, by the quality that they serve."""
        needed: dict[str, Sequence[Tokens]] = {}
        for recipe, plan in asked:
            glance = self.glance_for(recipe, plan)
            if glance is not None:
                needed["fast"] = glance.tokens
        balanced = any(recipe.quality == "balanced" for recipe, _ in asked)
        if self.sample is not None and self.importance is None and (balanced or self.imatrix):
            needed["balanced"] = self.sample.tokens[:BALANCED_SEQUENCES]
        return needed

    def noted(self, recipe: Recipe, plan: Plan) -> Plan:
        """The plan of `recipe` with a sentence on what its roundings rest on."""
        if recipe.quality in ("data-free", "fast"):
            glance = self.glance_for(recipe, plan)
            return plan if glance is None else plan.with_notes((_sentence(glance.record),))
        if self.importance is not None and recipe.quality == "balanced":
            return plan.with_notes((self.importance.note,))
        assert self.sample is not None
        record = self.sample.record
        if recipe.quality == "balanced":
            record = replace(record, sequences=min(record.sequences, BALANCED_SEQUENCES))
        return plan.with_notes((_sentence(record),))


def has_codes(recipe: Recipe, plan: Plan) -> bool:
    """Whether anything of the artifact is rounded; floats are stored as they are."""
    grids = target(recipe.target).grids
    return any(hasattr(grids[row.grid], "fit") for row in plan.rows)


def _record(text: CalibrationText, matrix: str | None = None) -> dict[str, Any]:
    return {
        "text": None if text.file is None else text.file.name,
        "sequences": text.sequences,
        "length": text.length,
        "imatrix": matrix,
    }


def _sentence(record: SampleRecord) -> str:
    return (
        f"calibrated on {record.sequences} sequences of {record.length} tokens of {record.name} "
        f"(sha256 {record.sha256[:16]}…)"
    )


def glances(recipe: Recipe, plan: Plan) -> bool:
    """Whether the rounding of `recipe` glances at text."""
    return recipe.quality == "fast" and has_codes(recipe, plan)


def gathered_sizes(order: Order, plans: Sequence[Plan]) -> list[tuple[int, int]]:
    """Sequences, at most, and tokens in each, that sums of inputs will be gathered over."""
    sizes = [GLANCE] if any(map(glances, order.recipes, plans)) else []
    balanced = "balanced" in order.qualities and order.imatrix.read is None
    if balanced or order.imatrix.write is not None:
        sizes.append((min(order.text.sequences, BALANCED_SEQUENCES), order.text.length))
    return sizes


def read_evidence(checkpoint: Checkpoint, order: Order, plans: Sequence[Plan]) -> Evidence:
    """Read what `order` rests on, whose plans are `plans`. Raises InputError for a text or a matrix
    that cannot serve.
    """
    files, tokenizer = order.imatrix, checkpoint.tokenizer
    importance = None
    if files.read is not None:
        importance = importance_files().read(Path(files.read), checkpoint.architecture)
    needed = any(map(glances, order.recipes, plans))
    glance = glance_of(tokenizer, *GLANCE) if needed else None
    sample = sample_of(tokenizer, order.text) if order.reads_text else None
    write = None if files.write is None else Path(files.write)
    return Evidence(glance, sample, importance, write, order.text)
