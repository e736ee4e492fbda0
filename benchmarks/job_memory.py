"""What `phiquant plan` says a job takes in memory, against what the job takes; print the table.

    python benchmarks/job_memory.py CHECKPOINT... [--to TARGETS...] [--results DIRECTORY]

For each checkpoint and each word of `--to` (a target, or several joined by commas, which are made
from one reading): the forecast of `plan --json`, and the highest anonymous memory of `quantize` at
INT4 (see `memory.py`; mapped pages of the checkpoint are not in it). The forecast is to be no less
than what is measured, and no more than three tenths above it; ends with 1 where it is not. Most of
what it is above is room for bytes that wait for the disk: a fast disk leaves it unused. An
unmeasured job comes first, for kernels are compiled in the first.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import write_json
from machine import describe_machine
from memory import measure
from tables import VERDICTS, Row, Table, line, page

COMMAND = (sys.executable, "-m", "phiquant")
TARGETS = ("gguf", "mlx", "onnx", "openvino", "gguf,mlx,onnx,openvino")
MOST = 1.3
"""The forecast over the measurement, at most; at least 1."""


JOBS = Table(("checkpoint", "targets", "forecast:", "measured:", "ratio:", ""))


def job_row(record: Mapping[str, Any]) -> Row:
    """One job: its `checkpoint` and `targets`, the `forecast` and the `measured` bytes."""
    ratio = record["forecast"] / record["measured"]
    met = 1 <= ratio <= MOST
    figures = (f"{record[name] / 1e6:.0f} MB" for name in ("forecast", "measured"))
    cells = (record["checkpoint"], record["targets"], *figures, f"{ratio:.2f}", VERDICTS[met])
    return Row(cells, {**record, "ratio": ratio}, met)


def measured_job(checkpoint: Path, targets: str, work: Path) -> Row:
    """Ask, then make and measure; what was made is removed."""
    words = [str(checkpoint), "--to", targets, "--precision", "int4", "-q"]
    asked = subprocess.run(
        [*COMMAND, "plan", *words, "--json"], capture_output=True, text=True, check=True
    )
    output = work / "job"
    shutil.rmtree(output, ignore_errors=True)
    usage = measure([*COMMAND, "quantize", *words, "-o", output])
    if usage.status:
        sys.exit(usage.errors)
    shutil.rmtree(output)
    forecast = json.loads(asked.stdout)["forecast"]["memory"]
    return job_row(
        {
            "checkpoint": checkpoint.resolve().name,
            "targets": targets,
            "forecast": forecast,
            "measured": usage.anonymous,
        }
    )


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document as JSON keeps it."""
    machine = document["machine"]
    return page(
        [
            "# Memory that making an artifact takes, forecast and measured",
            f"Made by `benchmarks/job_memory.py` on {machine['processor']}, {machine['cores']} "
            "cores: anonymous memory at its highest, INT4.",
            JOBS.text(job_row(record).cells for record in document["rows"]),
        ]
    )


def write_results(directory: Path, rows: Sequence[Row]) -> None:
    document = {"machine": describe_machine(), "rows": [row.record for row in rows]}
    (directory / "job_memory.md").write_text(markdown(document), encoding="utf-8")
    write_json(directory / "job_memory.json", document)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--to", nargs="+", default=list(TARGETS))
    parser.add_argument("--work", type=Path, default=Path(".cache/job-memory"))
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    every = ",".join(dict.fromkeys(",".join(given.to).split(",")))
    measured_job(given.checkpoints[0], every, given.work)
    rows = []
    for checkpoint in given.checkpoints:
        for targets in given.to:
            rows.append(measured_job(checkpoint, targets, given.work))
            print(line(rows[-1].cells), flush=True)
    if given.results:
        write_results(given.results, rows)
    sys.exit(0 if all(row.passed for row in rows) else 1)


if __name__ == "__main__":
    main()
