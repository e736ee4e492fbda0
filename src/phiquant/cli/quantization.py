"""`phiquant quantize`."""

from pathlib import Path

from phiquant.cli.console import out
from phiquant.cli.ending import Result, announce
from phiquant.cli.progress import shown
from phiquant.cli.recommending import recipes_for
from phiquant.cli.request import Asked
from phiquant.cli.wording import in_options
from phiquant.job.making import Made, carry_out
from phiquant.job.order import order
from phiquant.job.prospect import Prospect, prepare
from phiquant.reporting.table import forecast_text, plan_table


def quantize_command(
    model: str, asked: Asked, output: Path, *, progress: bool, summary: bool
) -> Result:
    """Make the artifacts; the result lists them with their plans.

    With `summary` the plans are printed before the first byte is written, and not at the end.
    """
    wanted = order(recipes_for(model, asked), asked.text, asked.imatrix)
    wanted.check_places(output)
    with shown(progress) as on_progress:
        prospect = prepare(
            model, wanted, on_progress, revision=asked.revision, adapter=asked.adapter
        )
    if summary:
        announce(lambda: _summarise(prospect))
    with shown(progress) as on_progress:
        made = carry_out(prospect, output, on_progress)
    return Result(
        {"artifacts": [artifact.as_json() for artifact in made]},
        lambda: _render(made, not summary),
    )


def _summarise(prospect: Prospect) -> None:
    for plan in prospect.plans:
        out(plan_table(plan))
    out(forecast_text(prospect.forecast, prospect.order.reads_text))


def _render(made: tuple[Made, ...], with_plans: bool) -> None:
    for artifact in made:
        if with_plans:
            out(plan_table(artifact.plan))
        for note in artifact.plan.notes:
            out(f"Note: {in_options(note)}")
        out(
            f"{artifact.path}: {artifact.plan.type}, "
            f"{artifact.plan.nbytes / 1e6:,.1f} MB of tensors, "
            f"{artifact.plan.bits_per_weight:.2f} bits per weight"
        )
