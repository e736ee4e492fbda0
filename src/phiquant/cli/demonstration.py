"""`phiquant demo`."""

from pathlib import Path
from typing import Any

from rich.table import Table

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.cli.progress import shown
from phiquant.cli.wheel import find_wheel
from phiquant.demo.demonstration import Demonstration, Row, demonstrate
from phiquant.evaluation.bootstrap import Estimate


def demo_command(output: Path, wheel: Path | None, progress: bool) -> Result:
    """Run the demonstration; it fails if any artifact does."""
    with shown(progress) as on_progress:
        found = demonstrate(find_wheel(wheel), output, on_progress=on_progress)
    failed = [
        row.made.path for row in found.rows if row.verification and not row.verification.passed
    ]
    failure = f"failed verification: {', '.join(map(str, failed))}" if failed else None
    return Result(_document(found), lambda: _render(found, output), failure)


def _document(found: Demonstration) -> dict[str, Any]:
    return {
        "rescaling": found.unchanged.as_json(),
        "artifacts": [
            {
                "path": str(row.made.path),
                "precision": row.precision,
                "target": row.made.plan.target,
                "type": row.made.plan.type,
                "nbytes": row.made.plan.nbytes,
                "bits_per_weight": row.made.plan.bits_per_weight,
                "verification": row.verification.as_json() if row.verification else None,
            }
            for row in found.rows
        ],
    }


def _render(found: Demonstration, output: Path) -> None:
    table = Table(
        "runtime", "precision", "type", "MB", "bits", "KL divergence", "top-1", "tokens/s"
    )
    for column in table.columns[3:]:
        column.justify = "right"
    for row in found.rows:
        table.add_row(*_cells(row))
    out(table)
    for row in found.rows:
        if row.verification and row.verification.answer:
            said = " ".join(row.verification.answer.text.split())
            out(f"{row.made.plan.target} {row.precision}: {said}")
    for note in sorted({_measured_elsewhere(row) for row in found.rows} - {""}):
        out(note)
    out(
        "The model is SmolLM2-135M-Instruct as a Phi-3 network, every channel re-scaled at random "
        "so that the 4-bit grid it was stored on is gone. The function is the same: KL divergence "
        f"{found.unchanged.mean.value:.1e} to the network as published."
    )
    out(f"The artifacts are in {output}.")


def _cells(row: Row) -> tuple[str, ...]:
    plan, found = row.made.plan, row.verification
    cells = (
        plan.target,
        row.precision.upper(),
        plan.type,
        f"{plan.nbytes / 1e6:.1f}",
        f"{plan.bits_per_weight:.2f}",
    )
    if found is None or found.figures is None or found.answer is None:
        return (*cells, "runtime not installed" if found is None else "does not run", "", "")
    return (
        *cells,
        _short(found.figures.mean),
        f"{100 * found.figures.top1_agreement.value:.1f} %",
        f"{found.answer.tokens_per_second:.1f}",
    )


def _short(figure: Estimate) -> str:
    """Two digits of the figure and one of its standard error, to fit a table's cell."""
    return f"{figure.value:.2g} ± {figure.error:.1g}" if figure.value else "0"


def _measured_elsewhere(row: Row) -> str:
    found = row.verification
    if found is None or found.measured_in is None or found.measured_in == found.runtime:
        return ""
    return (
        f"{found.runtime} is slow here: a short run in it agreed with {found.measured_in}, and its "
        "divergence and top-1 above come from the latter."
    )
