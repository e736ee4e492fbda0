"""Many jobs at once: is their memory the sum of what each takes alone, and no more?

    python benchmarks/load.py CHECKPOINT [--jobs N] [--to TARGET] [--results DIRECTORY]

The checkpoint is quantized once alone, for its kernels, once more measured, and then N times at the
same moment into one directory. Memory is anonymous memory at its highest, of all processes together
(see `memory.py`). Every artifact is to have the bytes of the first, and the memory is to be at most
N times that of one job; ends with 1 where it is not.
"""

import argparse
import hashlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import write_json
from machine import describe_machine
from memory import Usage, measure
from tables import Table, page

COMMAND = (sys.executable, "-m", "phiquant")
TOGETHER = (
    "import subprocess, sys\n"
    "words, places = sys.argv[2:], [f'{sys.argv[1]}/{n}' for n in range(JOBS)]\n"
    "jobs = [subprocess.Popen([*words, '-o', place]) for place in places]\n"
    "sys.exit(max([job.wait() for job in jobs]))\n"
)
FIGURES = Table(("jobs at once:", "memory:", "of one job, times the jobs:", ""))
RECORDS = ("phiquant.json", "README.md")


def content(directory: Path) -> str:
    """A hash of all files but the records, which tell the time."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in RECORDS:
            digest.update(str(path.relative_to(directory)).encode() + path.read_bytes())
    return digest.hexdigest()


def succeeded(usage: Usage) -> Usage:
    if usage.status:
        sys.exit(usage.errors)
    return usage


def measured(checkpoint: Path, target: str, jobs: int, work: Path) -> dict[str, Any]:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    words = [*COMMAND, "quantize", str(checkpoint), "--to", target, "-q"]
    succeeded(measure([*words, "-o", work / "first"]))
    one = succeeded(measure([*words, "-o", work / "alone"]))
    script = TOGETHER.replace("JOBS", str(jobs))
    many = succeeded(measure([sys.executable, "-c", script, work / "many", *words]))
    alone = content(work / "alone")
    return {
        "jobs": jobs,
        "target": target,
        "one": one.anonymous,
        "many": many.anonymous,
        "same": all(content(work / "many" / str(number)) == alone for number in range(jobs)),
    }


def passed(record: Mapping[str, Any]) -> bool:
    return record["same"] and record["many"] <= record["jobs"] * record["one"] * 1.02


def markdown(document: Mapping[str, Any]) -> str:
    """The page of a document as JSON keeps it."""
    machine, record = document["machine"], document["record"]
    cells = (
        str(record["jobs"]),
        f"{record['many'] / 1e6:.0f} MB",
        f"{record['jobs'] * record['one'] / 1e6:.0f} MB",
        "pass" if passed(record) else "FAIL",
    )
    return page(
        [
            "# Many jobs at once",
            f"Made by `benchmarks/load.py` of {document['checkpoint']} on {machine['processor']}, "
            f"{machine['cores']} cores: {record['target']} at INT4, anonymous memory at its "
            "highest. "
            + ("All have" if record["same"] else "NOT ALL have")
            + " the bytes of an artifact that was made alone.",
            FIGURES.text([cells]),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--to", default="gguf")
    parser.add_argument("--work", type=Path, default=Path(".cache/load"))
    parser.add_argument("--results", type=Path)
    given = parser.parse_args(arguments)
    document = {
        "machine": describe_machine(),
        "checkpoint": given.checkpoint.resolve().name,
        "record": measured(given.checkpoint, given.to, given.jobs, given.work),
    }
    print(markdown(document))
    if given.results:
        (given.results / "load.md").write_text(markdown(document), encoding="utf-8")
        write_json(given.results / "load.json", document)
    sys.exit(0 if passed(document["record"]) else 1)


if __name__ == "__main__":
    main()
