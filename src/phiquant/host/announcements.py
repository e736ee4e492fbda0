"""What the jobs of this user that are at work on this machine said they would take of its memory.

A job that has just begun has taken next to nothing yet, so what is free does not tell what it will
want. Each job keeps an empty file in one directory of the user's, named after its process and its
bytes, and locked: a dead process holds no lock, and its file goes when the next job looks. The
looking and the announcing are one step, so that of two jobs the later sees the earlier.

Where there is no such directory (no room, another user's), nothing is announced and nobody counts.
"""

import os
import re
import secrets
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from phiquant.host.lock import Lock
from phiquant.host.memory import used_memory

NAME = re.compile(r"(\d+)-(\d+)-[0-9a-f]{16}\.job")
"""Process id, bytes, and what makes it one of a kind."""
GATE = "gate"
PATIENCE = 5.0
"""Seconds after which a process that stopped in the middle of its look is not waited for."""


@contextmanager
def announced(memory: int) -> Iterator[int]:
    """Announce that this process will take `memory` bytes while the block lasts.

    Yields the bytes that the other jobs at work will still take, by what they announced.
    """
    with ExitStack() as stack:
        yield _announce(stack, memory)


def _announce(stack: ExitStack, memory: int) -> int:
    try:
        directory = _directory()
        with ExitStack() as looking:
            _wait_for(directory / GATE, looking)
            outstanding = _outstanding(directory)
            name = f"{os.getpid()}-{memory}-{secrets.token_hex(8)}.job"
            lock = Lock.take(directory / name)
    except OSError:
        return 0
    if lock is not None:
        stack.enter_context(lock)
    return outstanding


def _directory() -> Path:
    """The directory for announcements, the user's own. OSError if it cannot be had."""
    owner = os.getuid() if hasattr(os, "getuid") else 0
    directory = Path(tempfile.gettempdir()) / f"phiquant-jobs-{owner}"
    directory.mkdir(mode=0o700, exist_ok=True)
    seen = directory.lstat()
    if not stat.S_ISDIR(seen.st_mode) or (hasattr(os, "getuid") and seen.st_uid != owner):
        raise PermissionError(f"{directory} is another user's")
    return directory


def _wait_for(gate: Path, stack: ExitStack) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        lock = Lock.take(gate, remove=False)
        if lock is not None:
            stack.enter_context(lock)
            return
        time.sleep(0.005)


def _outstanding(directory: Path) -> int:
    """Bytes that living jobs announced and have not taken yet; files of dead jobs go."""
    promised: Counter[int] = Counter()
    for path in directory.iterdir():
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        lock = Lock.take(path)
        if lock is None:
            promised[int(match[1])] += int(match[2])
        else:
            lock.release()
    return sum(_still_to_take(process, memory) for process, memory in promised.items())


def _still_to_take(process: int, promised: int) -> int:
    """Nothing where the system does not say what a process has taken: it is not free any more."""
    used = used_memory(process)
    return 0 if used is None else max(0, promised - used)
