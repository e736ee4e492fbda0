"""Fuzzing: every parser reads sound files that are changed at random (`turns.py`).

    python tests/fuzzing/fuzz.py
    python tests/fuzzing/fuzz.py --parser "onnx graph" --seconds 600 --seed 7
    python tests/fuzzing/fuzz.py --executions 10000000 --record benchmarks/results/fuzzing.md

The parsers take turns of some seconds, in several processes, until each had `--seconds`, or until
there were `--executions` of all together: so a parser that is fast has more executions, and no
parser has less time. The bytes of findings are left in `--findings`.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from fuzzing.parsers import PARSERS, prepare, write_sound  # noqa: E402
from fuzzing.turns import Outcome, fuzz, in_memory  # noqa: E402

TURN, SLOW_TURN = 10.0, 2.0
"""Seconds; the second for parsers that start a process for each reading."""
HEAD = "| parser | executions | in a second of one core | refused | findings |"


@dataclass(frozen=True)
class Turn:
    """What a process is asked for."""

    parser: str
    seed: str
    seconds: float


def turns(names: list[str], seed: int, seconds: float) -> Iterator[Turn]:
    """One turn of each parser, and again, until each had so many seconds."""
    for number in count():
        begun = number * TURN
        if begun >= seconds:
            return
        for name in names:
            most = SLOW_TURN if PARSERS[name].slow else TURN
            yield Turn(name, f"{seed}.{number}", min(most, seconds - begun))


def take(turn: Turn, sound: Path) -> Outcome:
    """In a process of its own: one turn."""
    return fuzz(PARSERS[turn.parser], sound, turn.seed, sys.maxsize, turn.seconds)


def run(given: argparse.Namespace, sound: Path) -> dict[str, Outcome]:
    """Take turns in all processes until there were enough; the outcomes by parser."""
    names = given.parser or list(PARSERS)
    outcomes = {name: Outcome(name) for name in names}
    waiting = turns(names, given.seed, given.seconds)
    running: dict[Future[Outcome], Turn] = {}
    context = get_context("spawn")
    with ProcessPoolExecutor(given.processes, context, prepare, (sound,)) as pool:
        while True:
            executions = sum(outcome.executions for outcome in outcomes.values())
            while len(running) < given.processes and executions < given.executions:
                turn = next(waiting, None)
                if turn is None:
                    break
                running[pool.submit(take, turn, sound)] = turn
            if not running:
                return outcomes
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                turn = running.pop(future)
                try:
                    outcomes[turn.parser].add(future.result())
                except BrokenProcessPool:
                    outcomes[turn.parser].findings["the process, or one beside it, ended"] = b""
                    return outcomes


def table(outcomes: dict[str, Outcome]) -> str:
    """The outcomes in Markdown, with all of them in the last row."""
    whole = Outcome("all")
    rows = [HEAD, "| --- | ---: | ---: | ---: | ---: |"]
    for outcome in outcomes.values():
        whole.add(outcome)
        rows.append(_row(outcome, len(outcome.findings)))
    rows.append(_row(whole, sum(len(outcome.findings) for outcome in outcomes.values())))
    return "\n".join(rows)


def _row(outcome: Outcome, findings: int) -> str:
    rate = outcome.executions / max(outcome.seconds, 1e-9)
    share = 100 * outcome.refused / max(outcome.executions, 1)
    return (
        f"| {outcome.parser} | {outcome.executions:,} | {rate:,.0f} | {share:.0f}% | {findings} |"
    )


def commit() -> str:
    """The sources that are run."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def record(path: Path, sources: str, outcomes: dict[str, Outcome], seconds: float) -> None:
    """Write the table to `path`, with what it was measured on."""
    path.write_text(
        "# Fuzzing\n\n"
        f"As `python tests/fuzzing/fuzz.py {' '.join(sys.argv[1:])}` found it at the commit "
        f"{sources}, in {seconds / 60:.0f} minutes on {os.cpu_count()} cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}.\n\n"
        "An execution is one file, changed at random, that a parser reads or refuses. A finding\n"
        "is anything else: another exception, more than 5 s or 300 MB, a warning, a message.\n\n"
        f"{table(outcomes)}\n",
        encoding="utf-8",
    )


def save(outcomes: dict[str, Outcome], directory: Path) -> None:
    """Leave the bytes of every finding in `directory`, and print what was found."""
    for outcome in outcomes.values():
        for place, data in outcome.findings.items():
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / re.sub(r"\W+", "-", f"{outcome.parser} {place}")
            path.write_bytes(data)
            print(f"{outcome.parser}: {place}, in {path}", flush=True)


def main() -> int:
    form = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    options.add_argument("--parser", action="append", choices=PARSERS, help="default: all")
    options.add_argument("--executions", type=int, help="of all together, at least")
    options.add_argument("--seconds", type=float, help="of each, at most (60, or no end)")
    options.add_argument("--processes", type=int, default=os.cpu_count())
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    options.add_argument("--record", type=Path, help="a file for the table")
    given = options.parse_args()
    if given.seconds is None:
        given.seconds = 60.0 if given.executions is None else float("inf")
    given.executions = given.executions or sys.maxsize
    sources, began = commit(), time.monotonic()
    with tempfile.TemporaryDirectory(dir=in_memory()) as place:
        sound = Path(place)
        write_sound(sound)
        outcomes = run(given, sound)
    print(table(outcomes))
    save(outcomes, given.findings)
    if given.record is not None:
        record(given.record, sources, outcomes, time.monotonic() - began)
    return int(any(outcome.findings for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
