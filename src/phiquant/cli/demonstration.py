"""`phiquant demo`."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phiquant.cli.console import out, out_as_is
from phiquant.cli.demo_advice import give_advice
from phiquant.cli.demo_table import heading, line, table
from phiquant.cli.ending import Result, announce, warn
from phiquant.cli.progress import shown
from phiquant.cli.wheel import find_wheel
from phiquant.demo.demonstration import Demonstration, Row, demonstrate
from phiquant.errors import VerificationError
from phiquant.host.staging import check_destination


def demo_command(output: Path, wheel: Path | None, *, progress: bool, as_json: bool) -> Result:
    """Run the demonstration; it fails if any artifact does.

    Rows are shown as soon as they are measured: on a terminal in a table that grows above the
    progress, elsewhere in lines, which are then not printed again.
    """
    check_destination(output)
    rows: list[Row] = []
    began, times = time.monotonic(), []
    streams = (sys.stdout, sys.stderr)
    on_terminal = all(stream is not None and stream.isatty() for stream in streams)
    growing = progress and not as_json and on_terminal
    in_lines = not growing and not as_json

    def on_row(row: Row) -> None:
        if in_lines:
            announce(lambda: out_as_is(line(row) if rows else f"{heading()}\n{line(row)}"))
        rows.append(row)
        times.append(time.monotonic() - began)

    model = find_wheel(wheel, warn) if progress else find_wheel(wheel)
    with shown(progress, (lambda: table(rows)) if growing else None) as on_progress:
        whole = demonstrate(model, output, on_row, on_progress)
    failed = [
        row.made.path for row in whole.rows if row.verification and not row.verification.passed
    ]
    failure = (
        VerificationError(f"failed verification: {', '.join(map(str, failed))}") if failed else None
    )
    took = times[0], times[-1]
    return Result(_document(whole, took), lambda: _render(whole, took, growing), failure)


def _document(whole: Demonstration, took: tuple[float, float]) -> dict[str, Any]:
    return {
        "seconds": dict(zip(("first", "all"), took, strict=True)),
        "moved": whole.moved.as_json(),
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
            for row in whole.rows
        ],
    }


def _render(whole: Demonstration, took: tuple[float, float], with_table: bool) -> None:
    if with_table:
        out(table(whole.rows))
    out("")
    for note in _notes(whole):
        out(note)
    out(f"The first artifact was measured after {took[0]:.0f} s, the last after {took[1]:.0f} s.")
    give_advice(whole.rows)


def _notes(whole: Demonstration) -> Iterator[str]:
    yield _positions(whole.rows)
    yield from sorted({_measured_elsewhere(row) for row in whole.rows} - {""})
    yield (
        "The model is SmolLM2-135M-Instruct as a Phi-3 network, every weight moved at random "
        "within the step of the 4-bit grid that it was stored on, so that the grid is gone. It is "
        "compared with itself, not with the network as published: between the two is a KL "
        f"divergence of {whole.moved.mean.value:.2g}, over {whole.moved.positions:,} positions."
    )


def _positions(rows: tuple[Row, ...]) -> str:
    """Over how many positions the figures of each precision were taken."""
    counts: dict[int, dict[str, None]] = {}
    for row in rows:
        if row.verification is not None and row.verification.figures is not None:
            names = counts.setdefault(row.verification.figures.positions, {})
            names[row.precision.upper()] = None
    told = (f"{count:,} positions for {' and '.join(names)}" for count, names in counts.items())
    return f"KL divergence in nats a token, ± its standard error: {', '.join(told)}."


def _measured_elsewhere(row: Row) -> str:
    verification = row.verification
    if verification is None or not verification.by_reference:
        return ""
    return (
        f"{verification.runtime} is slow here: a short run in it agreed with "
        f"{verification.measured_in}, and its divergence and top-1 above come from the latter."
    )
