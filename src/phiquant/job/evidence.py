"""What roundings rest on beside the weights: a sample of text, or an importance matrix.

`best` needs second moments of what a layer takes in the quantized network, which only a text can
give. `balanced` needs mean squares, which a text gives and an importance matrix has, and takes
means too, which few matrices have.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phiquant.calibration.text import CalibrationSample, SampleRecord, sample_of
from phiquant.errors import RequestError
from phiquant.host.staging import check_destination
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.recipe import CalibrationText, ImatrixFiles, Recipe
from phiquant.targets.gguf.importance import Importance, read_importance

BALANCED_SEQUENCES = 32
"""Sequences that mean squares are taken over: they settle long before full moments do."""


@dataclass(frozen=True, slots=True)
class Basis:
    """The sample, where one is needed; the importance matrix that was read; where to write one."""

    sample: CalibrationSample | None = None
    importance: Importance | None = None
    imatrix: Path | None = None

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


def check_imatrix(recipes: Sequence[Recipe], text: CalibrationText, files: ImatrixFiles) -> None:
    """RequestError for importance matrices that nothing can be done with as asked."""
    qualities = {recipe.quality for recipe in recipes}
    if files.read is not None and files.write is not None:
        raise RequestError(
            "an importance matrix is read or written, not both: what is written is measured over "
            "the calibration text; leave --imatrix or --imatrix-out away"
        )
    if files.read is not None and "balanced" not in qualities:
        raise RequestError(
            "an importance matrix weighs the errors of --quality balanced; fast rounds from the "
            "weights alone, and best needs full moments, which only a calibration text gives"
        )
    if files.read is not None and text.path is not None and "best" not in qualities:
        raise RequestError(
            "expected an importance matrix or a calibration text, found both; leave --imatrix or "
            "--calibration away"
        )


def check_imatrix_out(imatrix: Path | None, output: Path) -> None:
    """DestinationError or RequestError if an importance matrix cannot go where it is to."""
    if imatrix is None:
        return
    check_destination(imatrix)
    if imatrix.absolute() == output.absolute():
        raise RequestError(f"{output} cannot be the artifact and the importance matrix too")


def make_basis(
    checkpoint: Checkpoint, recipes: Sequence[Recipe], text: CalibrationText, files: ImatrixFiles
) -> Basis:
    """Read what `recipes` rest on. Raises InputError for a text or a matrix that cannot serve."""
    importance = None
    if files.read is not None:
        importance = read_importance(files.read, checkpoint.architecture)
    needed = {recipe.quality for recipe in recipes} - {"fast"}
    if importance is not None:
        needed -= {"balanced"}
    sample = None
    if needed or files.write is not None:
        sample = sample_of(checkpoint.tokenizer, text)
    return Basis(sample, importance, files.write)
