"""`phiquant quantize`."""

from pathlib import Path

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.cli.progress import shown
from phiquant.pipeline import Made, quantize
from phiquant.recipe import CalibrationText, Recipe
from phiquant.reporting.table import plan_table


def quantize_command(
    model: str,
    revision: str | None,
    recipes: tuple[Recipe, ...],
    output: Path,
    text: CalibrationText,
    *,
    progress: bool,
) -> Result:
    """Make the artifacts; the result lists them with their plans."""
    with shown(progress) as on_progress:
        made = quantize(model, recipes, output, on_progress, revision=revision, text=text)
    return Result({"artifacts": [_document(one) for one in made]}, lambda: _render(made))


def _document(made: Made) -> dict[str, object]:
    return {
        "path": str(made.path),
        "recipe": made.recipe.as_json(),
        "plan": made.plan.as_json(),
    }


def _render(made: tuple[Made, ...]) -> None:
    for one in made:
        out(plan_table(one.plan))
        for note in one.plan.notes:
            out(f"Note: {note}")
        out(
            f"{one.path}: {one.plan.type}, {one.plan.nbytes / 1e6:,.1f} MB of tensors, "
            f"{one.plan.bits_per_weight:.2f} bits per weight"
        )
