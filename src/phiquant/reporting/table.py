"""Plans and inspections as rich renderables; printing them is the command line's business."""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from phiquant.evaluation.inspection import Inspection
from phiquant.phi.architecture import Architecture
from phiquant.planning.forecast import Forecast
from phiquant.planning.plan import Plan, PlanRow
from phiquant.reporting.units import duration, size


def plan_table(plan: Plan) -> RenderableType:
    """The plan in short: one row for all tensors of a role that are treated alike."""
    table = Table(title=f"{plan.target} {plan.type}", title_justify="left", pad_edge=False)
    for name in ("tensors", "", "stored as", "bytes", "why"):
        table.add_column(name, justify="right" if name in ("", "bytes") else "left")
    for line in _lines(plan.rows):
        table.add_row(line.role, str(line.count), line.grid, size(line.nbytes), line.reason)
    table.add_section()
    table.add_row(
        "all", str(len(plan.rows)), f"{plan.bits_per_weight:.2f} bits a weight", size(plan.nbytes)
    )
    return table


def plan_rows(plan: Plan) -> RenderableType:
    """The whole plan: a row for every tensor, with the reason for its form."""
    table = Table(title=f"{plan.target} {plan.type}", title_justify="left", pad_edge=False)
    for name in ("tensor", "shape", "stored as", "bytes", "why"):
        table.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for row in plan.rows:
        shape = " × ".join(map(str, row.shape))
        table.add_row(Text(row.output), shape, row.grid, f"{row.nbytes:,}", row.reason)
    table.add_section()
    table.add_row("all", "", f"{plan.bits_per_weight:.2f} bits a weight", f"{plan.nbytes:,}")
    return table


def forecast_text(forecast: Forecast, calibrates: bool) -> str:
    """What a job will take, in a line; `calibrates` says whether it reads a text before."""
    before = "the weights are checked"
    if calibrates and not forecast.calibration:
        before += " and the calibration, which is not in these figures, is done"
    return (
        f"To make it: {size(forecast.disk)} of disk, {size(forecast.memory)} of memory at most, "
        f"about {duration(forecast.seconds)} here once {before}."
    )


@dataclass(frozen=True, slots=True)
class _Line:
    role: str
    count: int
    grid: str
    nbytes: int
    reason: str


def _lines(rows: Iterable[PlanRow]) -> Iterable[_Line]:
    alike: dict[tuple[str, str, str], list[PlanRow]] = {}
    for row in rows:
        role = row.role.replace("_", " ") if row.role else row.output
        alike.setdefault((role, row.grid, row.reason), []).append(row)
    for (role, grid, reason), same in alike.items():
        yield _Line(role, len(same), grid, sum(row.nbytes for row in same), reason)


def inspection_table(inspection: Inspection, tensors: bool = False) -> RenderableType:
    """What an inspection found; every tensor too where `tensors` asks for it."""
    parts: list[RenderableType] = [_summary(inspection), _types(inspection)]
    if tensors:
        parts.append(_tensors(inspection))
    return Group(*parts)


def _summary(inspection: Inspection) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    grid.add_row("format", f"{inspection.format}, {inspection.type}")
    grid.add_row("architecture", describe(inspection.architecture))
    grid.add_row("weights", f"{inspection.weights:,}")
    grid.add_row(
        "size",
        f"{size(inspection.disk)} on disk, {size(inspection.nbytes)} of tensors, "
        f"{inspection.bits_per_weight:.2f} bits a weight",
    )
    for note in inspection.notes:
        grid.add_row("note", Text(note))
    for label, text in _provenance(inspection):
        grid.add_row(label, Text(text))
    return grid


def _provenance(inspection: Inspection) -> Iterable[tuple[str, str]]:
    if inspection.record is None:
        return
    made, source = inspection.record.made, inspection.record.source
    yield "made", f"by phiquant {made.get('phiquant', '?')}, {made.get('at', 'at no known time')}"
    yield (
        "source",
        " ".join(str(source[key]) for key in ("name", "hub_id", "revision") if source.get(key)),
    )
    verified = inspection.record.verification
    if verified is None:
        yield "verified", "not yet: phiquant verify PATH --against MODEL"
        return
    verdict = "passed" if verified.get("passed") else "failed"
    yield "verified", f"{verdict}{_divergence(verified.get('figures'))}"


def _divergence(figures: object) -> str:
    """The one figure of a recorded verification, if it is there in a form that can be read."""
    try:
        mean = figures["mean"]["value"]  # type: ignore[index]
        return f"; mean KL divergence {float(mean):.3g} nats a token"
    except (KeyError, TypeError, ValueError):
        return ""


def describe(architecture: Architecture) -> str:
    """An architecture in a line."""
    rope = architecture.rope
    long = f", LongRoPE beyond {rope.long.original_positions}" if rope.long else ""
    window = (
        f", sliding window {architecture.sliding_window}" if architecture.sliding_window else ""
    )
    return (
        f"Phi-3 style, {architecture.layers} layers, hidden {architecture.hidden_size}, "
        f"{architecture.heads} heads ({architecture.kv_heads} for keys) of "
        f"{architecture.head_size}, inner {architecture.intermediate_size}, vocabulary "
        f"{architecture.vocabulary_size:,}, {'tied' if architecture.tied_head else 'untied'} head, "
        f"{architecture.max_positions:,} positions{long}{window}"
    )


def _types(inspection: Inspection) -> RenderableType:
    table = Table(pad_edge=False)
    for name in ("type", "tensors", "weights", "bytes", "share", ""):
        table.add_column(name, justify="left" if name in ("type", "") else "right")
    for share in inspection.histogram:
        table.add_row(
            share.type,
            str(share.tensors),
            f"{share.weights:,}",
            f"{share.nbytes:,}",
            f"{share.share:.1%}",
            "█" * round(24 * share.share),
        )
    return table


def _tensors(inspection: Inspection) -> RenderableType:
    table = Table(pad_edge=False)
    for name in ("tensor", "shape", "type", "bytes"):
        table.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for entry in inspection.entries:
        shape = " × ".join(map(str, entry.shape))
        table.add_row(Text(entry.name), shape, entry.type, f"{entry.nbytes:,}")
    return table
