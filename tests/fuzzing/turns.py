"""One parser reads a sound file that is changed at random, again and again.

A finding is an exception that is no PhiquantError, a reading that takes longer than SECONDS or more
memory than MEMORY, and one in which a library warns, logs or panics, which would stand on stderr
beside the one sentence. A reading that ends the whole process leaves its bytes in a directory below
/dev/shm, where the system has that, or in the usual one for temporary files.
"""

import logging
import os
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fuzzing.parsers import Parser, copy_for
from memory_peak import Peak
from phiquant.errors import PhiquantError
from phiquant.phi.tokenizer.encoder import PANIC

SECONDS = 5
"""Of the processor."""
MEMORY = 300 << 20
LOOKS = 200
"""Readings between two looks at the memory."""
CHAIN = 3
"""Changes, on average, that go one upon another before the sound file is taken anew."""


class TooSlow(BaseException):
    """A reading took longer than it may."""


@dataclass
class Outcome:
    """What became of a parser."""

    parser: str
    executions: int = 0
    refused: int = 0
    seconds: float = 0.0
    """Of the processor, mutation included, and what was started."""
    findings: dict[str, bytes] = field(default_factory=dict)
    """Where it was raised and what, and the first bytes that do."""

    def add(self, other: "Outcome") -> None:
        """Take in what became of the same parser in another turn."""
        self.executions += other.executions
        self.refused += other.refused
        self.seconds += other.seconds
        self.findings = other.findings | self.findings


def fuzz(parser: Parser, sound: Path, seed: object, executions: int, seconds: float) -> Outcome:
    """Read at most so many changed files, at most so long."""
    random, outcome = Random(f"{seed} {parser.name}"), Outcome(parser.name)
    said = _Said()
    with said, warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=in_memory()) as scratch:
        warnings.simplefilter("error")
        path = copy_for(parser, sound, Path(scratch, "copy"))
        first = path.read_bytes()
        data, looked, recent = first, Peak(), []
        began, worked = time.monotonic(), _worked()
        while outcome.executions < executions and time.monotonic() - began < seconds:
            data = random.choice(parser.mutations)(random, data)
            recent.append(data)
            path.write_bytes(data)
            _read(parser, path.parent, data, outcome)
            if said.words:
                outcome.findings.setdefault(f"said {said.words[:80]}", data)
                said.words = ""
            if len(recent) == LOOKS:
                if looked.grown() > MEMORY:
                    outcome.findings.setdefault("memory", _largest(parser, path, recent))
                recent, looked = [], Peak()
            if random.randrange(CHAIN) == 0:
                data = first
        outcome.seconds = _worked() - worked
    return outcome


def _worked() -> float:
    """Seconds that the processor worked for this process and those that it started."""
    return sum(os.times()[:4])


class _Said(logging.Handler):
    """What libraries log, which would stand on stderr beside the one sentence."""

    words = ""

    def emit(self, record):
        self.words = record.getMessage()

    def __enter__(self):
        logging.getLogger().addHandler(self)

    def __exit__(self, *ended):
        logging.getLogger().removeHandler(self)


def _read(parser: Parser, directory: Path, data: bytes, outcome: Outcome) -> None:
    outcome.executions += 1
    try:
        with _within(SECONDS):
            parser.read(directory)
    except PhiquantError as error:
        outcome.refused += 1
        if type(error.__cause__).__name__ == PANIC:
            outcome.findings.setdefault(f"a panic: {str(error.__cause__)[:80]}", data)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        outcome.findings.setdefault(_place(error), data)


def _largest(parser: Parser, path: Path, contents: list[bytes]) -> bytes:
    """That of the contents whose reading takes most memory."""
    taken = []
    for data in contents:
        path.write_bytes(data)
        looked = Peak()
        with suppress(PhiquantError):
            parser.read(path.parent)
        taken.append(looked.grown())
    return contents[taken.index(max(taken))]


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raise TooSlow in a block that takes longer."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.signal(signal.SIGPROF, _slow)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _slow(*_: object) -> None:
    raise TooSlow


def _place(error: BaseException) -> str:
    """Type and origin of an exception: two that agree are one finding."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "phiquant" in frame.filename] or list(frames)
    last = own[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno} {last.name}"


def in_memory() -> str | None:
    """A directory in memory, if there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
