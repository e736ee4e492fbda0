"""Whether the machine has room for a job, and what would fit where it has not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from phiquant.errors import PhiquantError
from phiquant.host.memory import available_memory
from phiquant.host.remains import kept_bytes
from phiquant.host.staging import free_bytes
from phiquant.job.forecast import SPARE, require_disk, require_memory
from phiquant.job.prospect import Prospect, make_plans
from phiquant.planning.precision import PRECISIONS, Precision
from phiquant.recipe import Recipe


def require_room(prospect: Prospect, output: Path, promised: int = 0) -> None:
    """ResourceError, with what would fit, if the machine has too little memory or disk.

    `promised` bytes of the memory that is free are those of other jobs at work.
    """
    require_memory(prospect.forecast, available_memory(), promised)
    free = free_bytes(output) + kept_bytes(output)  # which this job would take over, or remove
    place = str(output.absolute().parent)
    require_disk(prospect.forecast, free, place, _fitting(prospect, free))


def _fitting(prospect: Prospect, free: int) -> Iterator[str]:
    """Requests that would fit into `free` bytes: the targets at less precision, then each alone."""
    sizes: dict[str, int] = {}
    for word in PRECISIONS:
        try:
            asked = [_at(recipe, cast(Precision, word)) for recipe in prospect.recipes]
            plans = make_plans(prospect.architecture, asked, prospect.surveyed)
        except PhiquantError:
            continue
        sizes[f"`precision={word}`"] = sum(plan.nbytes + SPARE for plan in plans)
    if len(prospect.recipes) > 1:
        for plan in prospect.plans:
            sizes[f"`target={plan.target}` alone"] = plan.nbytes + SPARE
    for words, needed in sizes.items():
        if needed <= free:
            yield f"{words} ({needed / 1e9:.2f} GB)"


def _at(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe at a precision, without a type or a budget of its own."""
    return replace(recipe, precision=precision, type=None, budget=None)
