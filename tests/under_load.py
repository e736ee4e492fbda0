"""Run the tests again and again beside busy loops, each time in a new order; print a table.

    python tests/under_load.py [--runs 10] [--loops 4] [--cores 2] [--workers 6] [PYTEST ARGUMENTS]

Whatever fails only in some order, or only when the machine is slow, shows here. `pytest
--randomly-seed=SEED` repeats the order of a row. What pytest printed lies in `.cache/under-load`.
Ends with 1 if any test failed in any run. Linux only.
"""

import argparse
import os
import random
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOGS = ROOT / ".cache" / "under-load"
BUSY = (sys.executable, "-c", "while True: pass")
HEADER = f"{'seed':>10}  {'passed':>6}  {'failed':>6}  {'skipped':>7}  {'seconds':>7}"


@dataclass(frozen=True)
class Run:
    """How one run of the tests ended."""

    seed: int
    passed: int
    failed: int
    skipped: int
    seconds: float
    names: tuple[str, ...]
    """Of the tests that failed."""
    complete: bool
    """Whether pytest came to its own end: it may also crash."""

    def row(self) -> str:
        """A line of the table."""
        counts = f"{self.passed:>6}  {self.failed:>6}  {self.skipped:>7}  {self.seconds:>7.0f}"
        return f"{self.seed:>10}  {counts}" + ("" if self.complete else "  (pytest crashed)")


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """A block beside which `loops` processes do nothing but take processor time."""
    processes = [subprocess.Popen(BUSY) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_tests(seed: int, workers: int, words: Sequence[str]) -> Run:
    """One run in the order of `seed`, with `workers` processes; `words` go to pytest."""
    LOGS.mkdir(parents=True, exist_ok=True)
    report, log = LOGS / f"{seed}.xml", LOGS / f"{seed}.txt"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-m", "not long", "-n", str(workers)]
    command += ["--dist", "worksteal", f"--randomly-seed={seed}", f"--junit-xml={report}", *words]
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        code = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    return read_report(seed, report, time.monotonic() - began, complete=code in (0, 1))


def read_report(seed: int, report: Path, seconds: float, *, complete: bool) -> Run:
    """What pytest's own report in JUnit's format says."""
    cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
    failed = [case for case in cases if {"failure", "error"} & {part.tag for part in case}]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = tuple(f"{case.get('classname')}::{case.get('name')}" for case in failed)
    passed = len(cases) - len(failed) - skipped
    return Run(seed, passed, len(failed), skipped, seconds, names, complete and bool(cases))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the tests beside busy loops, in new orders.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("--cores", type=int, default=2, help="at most so many are used, by all")
    parser.add_argument(
        "--workers", type=int, default=6, help="processes that run tests: all share the cores"
    )
    options, words = parser.parse_known_args()
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    os.sched_setaffinity(0, cores)
    print(
        f"{options.runs} runs in {options.workers} processes beside {options.loops} busy loops on "
        f"{len(cores)} cores"
    )
    print(HEADER, flush=True)
    runs = []
    with busy(options.loops):
        for _ in range(options.runs):
            runs.append(run_tests(random.randrange(10**9), options.workers, words))
            print(runs[-1].row(), *runs[-1].names, sep="\n            ", flush=True)
    sound = all(run.complete and not run.failed for run in runs)
    sys.exit(0 if sound else f"some tests failed; what pytest printed lies in {LOGS}")


if __name__ == "__main__":
    main()
