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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from checkpoints import write_json
from machine import describe_machine
from memory import measure

COMMAND = (sys.executable, "-m", "phiquant")
TARGETS = ("gguf", "mlx", "onnx", "openvino", "gguf,mlx,onnx,openvino")
MOST = 1.3
"""The forecast over the measurement, at most; at least 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """One job. Bytes."""

    checkpoint: str
    targets: str
    forecast: int
    measured: int

    @property
    def ratio(self) -> float:
        return self.forecast / self.measured

    @property
    def good(self) -> bool:
        return 1 <= self.ratio <= MOST


def row(checkpoint: Path, targets: str, work: Path) -> Row:
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
    return Row(checkpoint.resolve().name, targets, forecast, usage.anonymous)


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| checkpoint | targets | forecast | measured | ratio | |"
    yield "| --- | --- | ---: | ---: | ---: | --- |"
    for one in rows:
        yield (
            f"| {one.checkpoint} | {one.targets} | {one.forecast / 1e6:.0f} MB | "
            f"{one.measured / 1e6:.0f} MB | {one.ratio:.2f} | {'pass' if one.good else 'FAIL'} |"
        )


def write_results(directory: Path, rows: Sequence[Row]) -> None:
    machine = describe_machine()
    lines = [
        "# Memory that making an artifact takes, forecast and measured",
        "",
        f"Made by `benchmarks/job_memory.py` on {machine['processor']}, {machine['cores']} cores: "
        "anonymous memory at its highest, INT4.",
        "",
        *table(rows),
    ]
    (directory / "job_memory.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document = {"machine": machine, "rows": [asdict(one) | {"ratio": one.ratio} for one in rows]}
    write_json(directory / "job_memory.json", document)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--to", nargs="+", default=list(TARGETS))
    parser.add_argument("--work", type=Path, default=Path(".cache/job-memory"))
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    row(given.checkpoints[0], ",".join(dict.fromkeys(",".join(given.to).split(","))), given.work)
    rows = []
    for checkpoint in given.checkpoints:
        for targets in given.to:
            rows.append(row(checkpoint, targets, given.work))
            print(list(table(rows[-1:]))[-1], flush=True)
    if given.results:
        write_results(given.results, rows)
    sys.exit(0 if all(one.good for one in rows) else 1)


if __name__ == "__main__":
    main()
