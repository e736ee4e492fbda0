"""Run a command and say what it cost: wall, processor time, memory, files on the way.

    python benchmarks/memory.py [--watch DIRECTORY] -- COMMAND...

Linux only, standard library only. Every 20 ms the command's process and all its descendants are
read from /proc/PID/status, and the sums over the tree are kept at their highest:

- *anonymous*: RssAnon + RssShmem, memory that only a swap file could take back. This is what the
  bar is set on: mapped pages of a checkpoint are the page cache's and leave without cost.
- *resident*: VmRSS, mapped pages included.

A peak shorter than the interval can be missed; nothing that quantizes gigabytes lives so briefly.

Files under a watched directory are followed by inode (so a rename is no copy) at their largest
size. Those that the finished output does not hold are intermediate files.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

INTERVAL = 0.02
TICKS_PER_WATCH = 10
"""Directories are walked every tenth sample: 0.2 s."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run of a command took. Seconds and bytes."""

    wall: float
    user: float
    system: float
    anonymous: int
    resident: int
    written: int
    """Bytes that the block layer was given to write, by `getrusage`."""
    files: dict[int, int]
    """The largest size of every watched file, by inode."""
    status: int
    output: str = field(repr=False)
    errors: str = field(repr=False)

    def largest_intermediate(self, outputs: Sequence[Path]) -> int:
        """The size of the largest watched file that is not in `outputs`; 0 for none."""
        kept = {path.stat().st_ino for path in outputs}
        return max((size for inode, size in self.files.items() if inode not in kept), default=0)


def measure(
    command: Sequence[str | Path],
    watch: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Usage:
    """Run `command` to its end and return what it cost; a status other than 0 does not raise."""
    require_linux()
    files: dict[int, int] = {}
    anonymous = resident = ticks = 0
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=dict(environment) if environment is not None else None,
        )
        try:
            while not has_ended(process.pid, within=INTERVAL):
                now = memory_of_tree(process.pid)
                anonymous, resident = max(anonymous, now[0]), max(resident, now[1])
                if watch is not None and ticks % TICKS_PER_WATCH == 0:
                    note_sizes(watch, files)
                ticks += 1
            wall = time.perf_counter() - started
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if watch is not None:
            note_sizes(watch, files)
        texts = [read_text(file) for file in (output, errors)]
    return Usage(
        wall=wall,
        user=usage.ru_utime,
        system=usage.ru_stime,
        anonymous=anonymous,
        resident=resident,
        written=usage.ru_oublock * 512,
        files=files,
        status=process.returncode,
        output=texts[0],
        errors=texts[1],
    )


def require_linux() -> None:
    """Refuse to measure where children cannot be seen, rather than count them as nothing."""
    thread = threading.get_native_id()
    if not Path(f"/proc/self/task/{thread}/children").exists():
        raise NotImplementedError("Memory is measured through /proc/PID/task/TID/children (Linux).")


def has_ended(pid: int, within: float) -> bool:
    """Wait for a child at most `within` seconds, without collecting its status."""
    descriptor = os.pidfd_open(pid)
    try:
        return bool(select.select([descriptor], [], [], within)[0])
    finally:
        os.close(descriptor)


def memory_of_tree(root: int) -> tuple[int, int]:
    """(anonymous, resident) bytes of a process and its descendants; what has gone counts 0."""
    anonymous = resident = 0
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children(pid)
        fields = status_fields(pid)
        anonymous += fields.get("RssAnon", 0) + fields.get("RssShmem", 0)
        resident += fields.get("VmRSS", 0)
    return anonymous, resident


def children(pid: int) -> list[int]:
    """The direct children of every thread of a process."""
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text(encoding="ascii").split())
    except (FileNotFoundError, ProcessLookupError):
        return children
    return children


def status_fields(pid: int) -> dict[str, int]:
    """The sizes in /proc/PID/status, in bytes; none for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    sizes = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(number) * 1024 for name, number, _ in sizes}


def note_sizes(directory: Path, files: dict[int, int]) -> None:
    """Raise each file's noted size to what it is now; files come and go while this looks."""
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                entry = Path(folder, name).lstat()
            except FileNotFoundError:
                continue
            files[entry.st_ino] = max(files.get(entry.st_ino, 0), entry.st_size)


def read_text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a command and print what it cost.")
    parser.add_argument("--watch", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no command given after --")
    usage = measure(command, options.watch)
    sys.stdout.write(usage.output)
    sys.stderr.write(usage.errors)
    figures = asdict(usage)
    largest = max(figures.pop("files").values(), default=0)
    del figures["output"], figures["errors"]
    print(json.dumps(figures | {"largest_file": largest}))
    sys.exit(usage.status if usage.status >= 0 else 1)


if __name__ == "__main__":
    main()
