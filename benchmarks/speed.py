"""Time this tool and its peers on a Phi-4-mini-shaped checkpoint, in one go; print the ratios.

    python benchmarks/speed.py [--peers PYTHON] [--rounds N] [--layers 32] [--only NAME...]

Each round runs every contender once, ours right after the peer that it is compared with, so that
a slow minute of the machine falls on both. Before a run: the working directory is emptied, what
is dirty is brought to the disk, and the checkpoint is read once, so that everyone starts from the
same page cache. A run's wall time ends when its process does (ours has synced its files by then,
the peers' have not; the `sync` that follows is timed apart). Before the first round every
contender runs once, unmeasured, on a one-layer checkpoint: modules are then in the page cache and
our kernels compiled, and every output is loaded in its runtime. What that compilation costs once
is measured there and stated.

Writes `results/speed.json` and `results/speed.md`; exits with 1 when a bar is missed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checkpoints import DEFAULT_PEERS, kept_checkpoint
from contenders import CONTENDERS, Contender, Task
from machine import describe_machine, listed, our_versions, peer_versions, tools_environment
from memory import Usage, measure
from tables import page, verdict_table
from verdict import Run, rows, run_table

ROOT = Path(__file__).resolve().parent.parent
START_UPS = 10
TITLES = {contender.name: contender.title for contender in CONTENDERS}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    peers: Path
    rounds: int
    layers: int
    work: Path
    checkpoint: Path | None
    results: Path
    only: tuple[str, ...]


def read_options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="their Python")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--layers", type=int, default=32, help="fewer for a smoke test")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--checkpoint", type=Path, help="made under WORK when not given")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    given = vars(parser.parse_args(arguments))
    # Not resolved: a virtual environment's python is a link, and must be called as one.
    given |= {name: path.absolute() for name, path in given.items() if isinstance(path, Path)}
    return Options(**given | {"only": tuple(given["only"])})


def main() -> None:
    options = read_options()
    began = time.perf_counter()
    if not options.peers.exists():
        sys.exit(f"{options.peers} does not exist; run `make peers`, or pass --peers PYTHON.")
    machine = describe_machine()
    contenders = [contender for contender in CONTENDERS if contender.name in options.only]
    small = kept_checkpoint(options.work, 1, options.peers)
    checkpoint = options.checkpoint or kept_checkpoint(options.work, options.layers, options.peers)
    try:
        once = warm_up(contenders, task_of(options, small))
        runs = [
            run_once(contender, task_of(options, checkpoint))
            for _ in range(options.rounds)
            for contender in contenders
        ]
    finally:
        clear(options.work / "run")
    ours = any(contender.is_ours for contender in contenders)
    startup = [time_start_up() for _ in range(START_UPS)] if ours else []
    table = rows(runs, startup)
    report: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": {"ours": our_versions(), "peers": peer_versions(options.peers)},
        "checkpoint": {"layers": options.layers, "bytes": weight_bytes(checkpoint)},
        "compilation_s": once,
        "rows": [row.record for row in table],
        "runs": [asdict(run) for run in runs],
        "start_up_s": startup,
        "whole_benchmark_s": time.perf_counter() - began,
    }
    text = markdown(report)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "speed.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.results / "speed.md").write_text(text)
    print(text)
    sys.exit(1 if any(row.passed is False for row in table) else 0)


def task_of(options: Options, checkpoint: Path) -> Task:
    threads = len(os.sched_getaffinity(0))
    return Task(checkpoint, options.work / "run", options.peers, threads)


def warm_up(contenders: Sequence[Contender], task: Task) -> float | None:
    """Run each contender on the small checkpoint and load its output; the cost of compiling.

    Ours are run twice, the first time without a cache of compiled kernels: the differences are
    what compilation takes, once per installation. None when ours is not run.
    """
    shutil.rmtree(task.work.parent / "kernels", ignore_errors=True)
    cost: float | None = None
    for contender in contenders:
        say(f"warming up: {contender.title}")
        usage = perform(contender, task)
        for check in contender.checks(task):
            result = subprocess.run(check, capture_output=True, text=True, check=False)
            if result.returncode:
                sys.exit(f"{contender.name}: the runtime refuses it.\n{result.stderr}")
            say(f"  loads: {result.stdout.strip().splitlines()[-1]}")
        if contender.is_ours:
            cost = (cost or 0.0) + max(0.0, usage.wall - perform(contender, task).wall)
    clear(task.work)
    return cost


def run_once(contender: Contender, task: Task) -> Run:
    """One measured run; its output is removed."""
    say(f"running: {contender.title}")
    usage = perform(contender, task)
    began = time.perf_counter()
    os.sync()
    flush = time.perf_counter() - began
    outputs = [path for path in task.output.rglob("*") if path.is_file()]
    run = Run(
        contender=contender.name,
        wall=usage.wall,
        flush=flush,
        processor=usage.user + usage.system,
        anonymous=usage.anonymous,
        resident=usage.resident,
        output_bytes=sum(path.stat().st_size for path in outputs),
        intermediate_bytes=usage.largest_intermediate(outputs),
        written_bytes=usage.written,
    )
    clear(task.work)
    say(f"  {run.wall:.1f} s, {run.anonymous / 1e9:.2f} GB anonymous")
    return run


def perform(contender: Contender, task: Task) -> Usage:
    """Run a contender from an empty directory and a full page cache; exit when it fails."""
    clear(task.work)
    (task.work / "temporary").mkdir(parents=True)
    os.sync()
    read_through(task.checkpoint)
    environment = tools_environment(
        TMPDIR=str(task.work / "temporary"),
        NUMBA_CACHE_DIR=str(task.work.parent / "kernels"),
        HF_HUB_OFFLINE="1",
    )
    usage = measure(contender.command(task), task.work, environment)
    if usage.status:
        sys.exit(f"{contender.name} ended with {usage.status}.\n{usage.errors[-4000:]}")
    return usage


def clear(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)


def read_through(checkpoint: Path) -> None:
    """Bring the checkpoint into the page cache, as far as memory allows."""
    buffer = bytearray(1 << 24)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def time_start_up() -> float:
    """Seconds of `phiquant --help`: the installed script where there is one."""
    script = Path(sys.executable).parent / "phiquant"
    command = [str(script)] if script.exists() else [sys.executable, "-m", "phiquant"]
    began = time.perf_counter()
    subprocess.run([*command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - began


def weight_bytes(checkpoint: Path) -> int:
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


def markdown(report: Mapping[str, Any]) -> str:
    """The page of a report as JSON keeps it."""
    machine, versions = report["machine"], report["versions"]
    checkpoint, cost = report["checkpoint"], report["compilation_s"]
    facts = [
        f"Checkpoint: Phi-4-mini's shapes, {checkpoint['layers']} layers, "
        f"{checkpoint['bytes'] / 1e9:.2f} GB of BF16.",
        f"Machine: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, "
        f"{machine['libc']}, Python {machine['python']}; load {machine['load_before']:.1f} before.",
        f"Ours: {listed(versions['ours'])}.",
        f"Peers: {listed(versions['peers'])}.",
    ]
    if cost is not None:
        facts.append(f"Compiling our kernels, once per installation: {cost:.1f} s, not included.")
    facts.append(f"The whole benchmark took {report['whole_benchmark_s']:.0f} s.")
    verdicts, runs = verdict_table(report["rows"]), run_table(report["runs"], TITLES)
    return page(["# Speed and memory", verdicts, *facts, "## Every run", runs])


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
