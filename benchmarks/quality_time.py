"""What the glance of `fast` costs: its time against that of `data-free`, in turns.

    python benchmarks/quality_time.py CHECKPOINT [--rounds 3] [--work DIRECTORY]

CHECKPOINT is of Phi-4-mini's shapes (`checkpoints.py` makes it). Each round makes INT4 of every
target, and of all four from one reading, by both qualities one after the other, through the command
line. Figures are medians over rounds of the wall time of the whole process. Writes
`results/quality_time.md`; exits with 1 when a bar is missed.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from contenders import Command
from machine import listed, our_versions, tools_environment
from memory import Usage, measure
from tables import Table, page

ROOT = Path(__file__).resolve().parent.parent
BARS = {"gguf": 1.5, "mlx": 1.5, "onnx": 1.5, "openvino": 1.5, "gguf,mlx,onnx,openvino": 1.3}
QUALITIES = ("data-free", "fast")
TIMES = Table(("", "`data-free`:", "`fast`:", "ratio:", "bar:", "", "memory of `fast`:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=tuple(BARS), default=list(BARS))
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "quality-time")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    rows, passed = [], True
    for targets in options.only:
        runs = in_turns(options.checkpoint, targets, options.work, options.rounds)
        before, after = (median(run.wall for run in runs[quality]) for quality in QUALITIES)
        met = after / before <= BARS[targets]
        passed = passed and met
        memory = max(run.anonymous for run in runs["fast"])
        rows.append(
            (
                targets,
                spread(runs["data-free"]),
                spread(runs["fast"]),
                f"{after / before:.2f}",
                f"≤ {BARS[targets]}",
                "pass" if met else "FAIL",
                f"{memory / 1e9:.2f} GB",
            )
        )
        parts = [
            "# What the glance costs",
            f"Wall time of `phiquant quantize --precision int4`, medians of {options.rounds} runs "
            f"in turns (least to most), {options.checkpoint.name}.",
            f"Ours: {listed(our_versions())}.",
            TIMES.text(rows),
        ]
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "quality_time.md").write_text(page(parts))
        print(rows[-1], flush=True)
    sys.exit(0 if passed else 1)


def in_turns(checkpoint: Path, targets: str, work: Path, rounds: int) -> dict[str, list[Usage]]:
    """The runs of each quality; one of a round comes right after the other."""
    runs: dict[str, list[Usage]] = {quality: [] for quality in QUALITIES}
    for _ in range(rounds):
        for quality in QUALITIES:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            read_through(checkpoint)
            start: Command = [sys.executable, "-m", "phiquant", "quantize", checkpoint]
            form: Command = ["--to", targets, "--precision", "int4", "--quality", quality]
            usage = measure([*start, *form, "-o", work / "made", "--json"], None, ENVIRONMENT)
            if usage.status:
                sys.exit(f"{targets}, {quality}: {usage.errors[-1500:]}")
            runs[quality].append(usage)
    shutil.rmtree(work, ignore_errors=True)
    return runs


ENVIRONMENT = tools_environment()


def read_through(checkpoint: Path) -> None:
    """Bring the weights to the page cache."""
    for file in checkpoint.glob("*.safetensors"):
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass


def spread(runs: Sequence[Usage]) -> str:
    walls = sorted(run.wall for run in runs)
    return f"{median(walls):.1f} s ({walls[0]:.1f} to {walls[-1]:.1f})"


if __name__ == "__main__":
    main()
