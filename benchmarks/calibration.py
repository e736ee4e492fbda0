"""Time and memory of `--quality best` on the Phi-4-mini shape, against its matrix products.

    python benchmarks/calibration.py [--layers 2] [--to gguf] [--size 128x512] [--peers PYTHON]

A few blocks stand for the 32: what a block takes does not depend on how many there are, and the
embedding, the head and what is done once are there in full. Three bars:

- peak anonymous memory of the whole run, 4 GB;
- the whole run's wall time against what its matrix products alone need, at the rate of one large
  float32 product measured in the same process before and after: 1.5. The products are counted
  here, not taken from the run: see `products`;
- the time that the run announced against the time that it took from then on: within 25%.

Writes `results/calibration.json` and `calibration.md`; exits with 1 when a bar is missed.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

from checkpoints import DEFAULT_PEERS, kept_checkpoint, phi4_mini_architecture
from machine import describe_machine, our_versions, tools_environment
from memory import Usage, measure
from products import Products, count
from tables import Bar, Row, judged, page, verdict_table

ROOT = Path(__file__).resolve().parent.parent
RUN = Path(__file__).parent / "calibrated_run.py"
MEMORY_BAR = 4.0
PRODUCTS_BAR = 1.5
ANNOUNCED_BAR = 0.25


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    layers: int
    to: str
    size: str
    work: Path
    peers: Path
    results: Path

    @property
    def tokens(self) -> tuple[int, int]:
        sequences, length = self.size.split("x")
        return int(sequences), int(length)


def read_options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--to", default="gguf")
    parser.add_argument("--size", default="128x512", help="sequences x tokens")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="for the tokenizer")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    given = vars(parser.parse_args(arguments))
    given |= {name: path.absolute() for name, path in given.items() if isinstance(path, Path)}
    return Options(**given)


def main() -> None:
    options = read_options()
    machine = describe_machine()
    checkpoint = kept_checkpoint(options.work, options.layers, options.peers)
    usage, timing = run(options, checkpoint)
    products = count(phi4_mini_architecture(options.layers), *options.tokens)
    table = rows(usage, timing, products)
    report: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": our_versions(),
        "layers": options.layers,
        "size": options.size,
        "target": options.to,
        "products": asdict(products) | {"total": products.total},
        "found": timing,
        "anonymous": usage.anonymous,
        "resident": usage.resident,
        "rows": [row.record for row in table],
    }
    text = markdown(report)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "calibration.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.results / "calibration.md").write_text(text)
    print(text)
    sys.exit(1 if any(row.passed is False for row in table) else 0)


def run(options: Options, checkpoint: Path) -> tuple[Usage, dict[str, Any]]:
    """The measured run, in a process of its own; its output is removed."""
    output = options.work / "calibrated"
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, RUN, checkpoint, output, "--to", options.to, "--size", options.size]
    try:
        usage = measure(list(map(str, command)), None, tools_environment())
    finally:
        shutil.rmtree(output, ignore_errors=True)
    if usage.status:
        sys.exit(f"the run ended with {usage.status}.\n{usage.errors[-4000:]}")
    return usage, json.loads(usage.output.splitlines()[-1])


def rows(usage: Usage, timing: dict[str, Any], products: Products) -> list[Row]:
    memory = usage.anonymous / 1e9
    alone = products.total / mean(timing["rate"])
    ratio = timing["wall_s"] / alone
    used, wall = f"{memory:.2f} GB", f"{timing['wall_s']:.0f} s"
    memory_bar = Bar(MEMORY_BAR, words=f"≤ {MEMORY_BAR:g} GB")
    what = "wall, against the products alone"
    return [
        judged("peak anonymous memory", used, "", (memory, used), memory_bar),
        judged(what, wall, f"{alone:.0f} s", (ratio, f"{ratio:.2f}"), Bar(PRODUCTS_BAR)),
        announced_row(timing),
    ]


def announced_row(timing: dict[str, Any]) -> Row:
    announced = timing["announced_s"]
    what = "announced, against taken"
    bar = Bar(ANNOUNCED_BAR, words=f"within {ANNOUNCED_BAR:.0%}")
    if announced is None:
        return judged(what, "nothing", "", (inf, "nothing announced"), bar)
    taken = timing["announced_stage_s"]
    off = announced / taken - 1
    return judged(what, f"{announced:.0f} s", f"{taken:.0f} s", (abs(off), f"{off:+.0%}"), bar)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def markdown(report: Mapping[str, Any]) -> str:
    """The page of a report as JSON keeps it."""
    machine, timing, products = report["machine"], report["found"], report["products"]
    rates = " and ".join(f"{rate / 1e9:.0f}" for rate in timing["rate"])
    parts = ", ".join(f"{name} {value / 1e12:.1f}" for name, value in products.items())
    alone = products["total"] / mean(timing["rate_per_processor_s"])
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in timing["stages_s"].items())
    return page(
        [
            "# Calibration on the Phi-4-mini shape",
            verdict_table(report["rows"]),
            f"{report['layers']} blocks, {report['size']} tokens, --to {report['target']} "
            "--quality best.",
            f"One large float32 product ran at {rates} GFLOP/s, before and after. "
            f"Products, in TFLOP: {parts}. In processor time, which other work on the machine "
            f"does not lengthen: {timing['processor_s']:.0f} s against {alone:.0f} s, or "
            f"{timing['processor_s'] / alone:.2f} of it.",
            f"Stages: {stages}.",
            f"Machine: {machine['processor']}, {machine['cores']} cores, Linux "
            f"{machine['kernel']}, Python {machine['python']}; load "
            f"{machine['load_before']:.1f} before.",
        ]
    )


if __name__ == "__main__":
    main()
