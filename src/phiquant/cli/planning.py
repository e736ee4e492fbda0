"""`phiquant plan`."""

from pathlib import Path

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.cli.progress import shown
from phiquant.cli.recommending import recipes_for
from phiquant.cli.request import Asked
from phiquant.cli.wording import in_options
from phiquant.host.staging import check_destination
from phiquant.job.prospect import Prospect, plan
from phiquant.job.room import require_room
from phiquant.reporting.table import forecast_text, plan_rows, plan_table


def plan_command(
    model: str, asked: Asked, output: Path | None, *, progress: bool, every_row: bool
) -> Result:
    """Plan, and write nothing. With `output`, ResourceError if there is no room for it there."""
    if output is not None:
        check_destination(output)
    recipes = recipes_for(model, asked)
    with shown(progress) as on_progress:
        prospect = plan(
            model,
            recipes,
            on_progress,
            revision=asked.revision,
            adapter=asked.adapter,
            text=asked.text,
            imatrix=asked.imatrix,
        )
    if output is not None:
        require_room(prospect, output)
    return Result(prospect.as_json(), lambda: _render(prospect, every_row))


def _render(prospect: Prospect, every_row: bool) -> None:
    for made in prospect.plans:
        out(plan_rows(made) if every_row else plan_table(made))
        for note in made.notes:
            out(f"Note: {in_options(note)}")
        out(f"{made.target} {made.type}: {made.nbytes:,} bytes of tensors")
    out(forecast_text(prospect.forecast, prospect.order.reads_text))
