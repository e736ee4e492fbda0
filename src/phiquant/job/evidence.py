"""`Evidence`: what roundings rest on beside the weights, a sample of text or an importance matrix.

`best` needs second moments of what a layer takes in the quantized network, which only a text can
give. `balanced` needs mean squares, which a text gives and an importance matrix has, and takes
means too, which few matrices have.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.text import CalibrationSample, SampleRecord, sample_of
from phiquant.job.order import Order
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.recipe import Recipe
from phiquant.targets.importance import Importance
from phiquant.targets.table import importance_files

BALANCED_SEQUENCES = 32
"""Sequences that mean squares are taken over: they settle long before full moments do."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The sample, where one is needed; the importance matrix that was read; where to write one."""

    sample: CalibrationSample | None = None
    importance: Importance | None = None
    imatrix: Path | None = None
    text: CalibrationText = field(default_factory=CalibrationText)
    """The text that was asked for."""

    def as_json(self, recipe: Recipe) -> dict[str, Any] | None:
        """What `recipe` was carried out by beside the weights, for its record; None if nothing."""
        if recipe.quality == "fast" and recipe.budget is None:
            return None
        matrix = self.importance if recipe.quality == "balanced" else None
        return {
            "text": None if self.text.file is None else self.text.file.name,
            "sequences": self.text.sequences,
            "length": self.text.length,
            "imatrix": None if matrix is None else matrix.name,
        }

    def noted(self, recipe: Recipe, plan: Plan) -> Plan:
        """The plan of `recipe` with a sentence on what its roundings rest on."""
        if recipe.quality == "fast":
            return plan
        if self.importance is not None and recipe.quality == "balanced":
            return plan.with_notes((self.importance.note,))
        assert self.sample is not None
        record = self.sample.record
        if recipe.quality == "balanced":
            record = replace(record, sequences=min(record.sequences, BALANCED_SEQUENCES))
        return plan.with_notes((_sentence(record),))


def _sentence(record: SampleRecord) -> str:
    return (
        f"calibrated on {record.sequences} sequences of {record.length} tokens of {record.name} "
        f"(sha256 {record.sha256[:16]}…)"
    )


def read_evidence(checkpoint: Checkpoint, order: Order) -> Evidence:
    """Read what `order` rests on. Raises InputError for a text or a matrix that cannot serve."""
    files = order.imatrix
    importance = None
    if files.read is not None:
        importance = importance_files().read(Path(files.read), checkpoint.architecture)
    sample = sample_of(checkpoint.tokenizer, order.text) if order.reads_text else None
    write = None if files.write is None else Path(files.write)
    return Evidence(sample, importance, write, order.text)
