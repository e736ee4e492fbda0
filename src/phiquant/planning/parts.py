"""Fused tensors in a plan: taken apart before grids are chosen, and joined where these agree.

A part is priced and stored like any tensor. Where all parts of one weight end up on one grid, they
are stored as the fused tensor that they were: one product instead of several.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Part, Role
from phiquant.planning.plan import Plan, PlanRow

Choices = Callable[[PlanRow], Sequence[PlanRow]]
"""From a row to the same row on each grid that it may have, with its bytes on that grid."""


def parts_in(row: PlanRow, architecture: Architecture) -> tuple[Part, ...]:
    """The matrices that a row of a plan holds."""
    assert row.source is not None
    held = range(row.first, row.first + row.shape[0])
    parts = architecture.network.linear[row.source].parts
    return tuple(part for part in parts if part.first in held)


def taken_apart(plan: Plan, architecture: Architecture, choices: Choices) -> Plan:
    """`plan` with a row for every part of a fused weight whose grid may be chosen.

    The grids of the new rows are arbitrary ones that they may have, to be chosen later.
    """
    rows: list[PlanRow] = []
    for row in plan.rows:
        parts = parts_in(row, architecture) if choices(row) else ()
        rows += [choices(_part(row, part))[0] for part in parts] if len(parts) > 1 else [row]
    return replace(plan, rows=tuple(rows))


def values_at_8_bits(plan: Plan, architecture: Architecture, choices: Choices) -> Plan:
    """`plan` with the values of attention at 8 bits where its queries and keys have fewer.

    Queries and keys stay on their grid. Rows stay as they are where a part cannot have that grid,
    or the values cannot have 8 bits.
    """
    rows: list[PlanRow] = []
    for row in plan.rows:
        fewer = row.role is Role.QKV and row.nbytes < row.weights
        rows += _with_values(row, architecture, choices) if fewer else [row]
    return replace(plan, rows=tuple(rows))


def _with_values(row: PlanRow, architecture: Architecture, choices: Choices) -> list[PlanRow]:
    *others, values = (_part(row, part) for part in parts_in(row, architecture))
    same = [choice for other in others for choice in choices(other) if choice.grid == row.grid]
    eight = [choice for choice in choices(values) if choice.nbytes >= choice.weights]
    if len(same) < len(others) or not eight:
        return [row]
    least = min(eight, key=lambda choice: choice.nbytes)
    return [*same, replace(least, reason="values cost the output most for their size: 8 bits")]


def _part(row: PlanRow, part: Part) -> PlanRow:
    shape = (part.rows, *row.shape[1:])
    return replace(row, output=part.stem, first=part.first, shape=shape)


def joined(plan: Plan, whole: Plan, choices: Choices) -> Plan:
    """`plan` with parts joined that are all on one grid; `whole` is what was taken apart."""
    before = {row.source: row for row in whole.rows}
    rows: list[PlanRow] = []
    for source, group in groupby(plan.rows, key=lambda row: row.source):
        parts = list(group)
        if len(parts) > 1 and source is not None and len({part.grid for part in parts}) == 1:
            fused = {row.grid: row for row in choices(before[source])}[parts[0].grid]
            reason = f"its parts agree: {max(parts, key=lambda part: part.weights).reason}"
            parts = [replace(fused, reason=reason)]
        rows += parts
    return replace(plan, rows=tuple(rows))
