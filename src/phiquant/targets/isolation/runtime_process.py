"""The child in which a runtime runs an artifact, as the process that started it sees it.

It answers one question at a time (`serving.py`). Two threads look after it: one keeps the end of
what it writes to stderr, the other kills it when an answer is overdue.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from phiquant.errors import RequestError
from phiquant.host.child import python
from phiquant.quantization.grid import Floats
from phiquant.targets.isolation.frames import BrokenFrameError, Document, receive, send, widen_pipe

PROGRAM = "from phiquant.targets.isolation.serving import serve; serve()"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MLX_DISABLE_COMPILE": "1",  # on a CPU that runs g++ and loads what it made in /tmp
    "NUMBA_DISABLE_JIT": "1",  # no kernel is needed, and no cache may be written
}
UNWANTED = ("ORT_LOAD_CONFIG_FROM_MODEL",)
"""Would have ONNX Runtime take session options from the graph."""

POLL = 0.25
"""Seconds between two looks at whether an answer is overdue."""
JOINED = 5.0
"""Seconds that a thread may take to see that the child is dead."""
LAST_WORDS = 64
"""Lines of the child's stderr that are kept."""
LONGEST_WORD = 300
"""Characters of a line that are told."""
TELLING = re.compile(r"error|assert|abort|terminate|what\(\)|failed|fatal", re.IGNORECASE)

DEATHS = {
    "SIGABRT": "it gave up (SIGABRT)",
    "SIGSEGV": "it reached for memory that it does not have (SIGSEGV)",
    "SIGBUS": "it reached for memory that it does not have (SIGBUS)",
    "SIGKILL": "it was killed (SIGKILL), as happens where memory runs out",
    "SIGXCPU": "it took more processor time than any artifact of this model should (SIGXCPU)",
}


class GoneError(Exception):
    """The child is no more; the message says what it died of, in a phrase with a subject."""

    def __init__(self, cause: str, last_word: str = "") -> None:
        super().__init__(f"{cause}: {last_word}" if last_word else cause)
        self.last_word = last_word


class RuntimeProcess:
    """A child that was started, and gets ready while this process goes on."""

    def __init__(self, request: Document) -> None:
        """`request` says how it is to be shut in. Raises RequestError if none can be started."""
        self._overdue: float | None = None
        self._patience = 0.0
        self._late = False
        self._over = threading.Event()
        self._gone: GoneError | None = None
        self._words: deque[str] = deque(maxlen=LAST_WORDS)
        self._process = _start()
        widen_pipe(_of(self._process.stdout).fileno())
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._hear, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        first = request | {"parent": os.getpid()}
        with suppress(OSError):
            os.write(_of(self._process.stdin).fileno(), json.dumps(first).encode() + b"\n")

    def ask(
        self, question: Document, seconds: float, longest: int, shape: tuple[int, int] | None = None
    ) -> tuple[Document, Floats]:
        """Its answer, for which it has so many seconds, of at most `longest` bytes and an array of
        at most `shape`.

        Raises GoneError where it died, now or before; it is killed if it answers too late, or what
        is no answer.
        """
        if self._gone is not None:
            raise self._gone
        self._patience = seconds
        self._overdue = time.monotonic() + seconds
        try:
            with suppress(OSError):  # of a pipe that nobody reads; that there is no answer tells
                send(_of(self._process.stdin), question)
            return receive(_of(self._process.stdout), longest, shape)
        except EOFError:
            self._gone = self._death()
        except BrokenFrameError as error:
            self._process.kill()
            self._gone = GoneError(f"it gave no answer that makes sense ({error})")
        finally:
            self._overdue = None
        raise self._gone

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _of(stream).close()

    def _death(self) -> GoneError:
        """What it died of, and its last words."""
        if self._late:
            return GoneError(f"it gave no answer for {self._patience:.0f} seconds")
        code = self._process.wait()
        self._join()
        cause = f"it ended with the code {code if code < 256 else hex(code)}"
        if code < 0:
            name = signal.Signals(-code).name
            cause = DEATHS.get(name, f"it was ended by {name}")
        lines = [line.strip() for line in self._words if line.strip()]
        telling = [line for line in lines if TELLING.search(line)]
        return GoneError(cause, (telling or lines or [""])[-1][-LONGEST_WORD:])

    def _hear(self) -> None:
        """Keep the end of what it writes to stderr."""
        stream = _of(self._process.stderr)
        rest = b""
        while piece := os.read(stream.fileno(), 1 << 16):
            *lines, rest = (rest + piece).split(b"\n")
            self._words.extend(line[:1000].decode("utf-8", "replace") for line in lines)
            rest = rest[-1000:]
        self._words.append(rest.decode("utf-8", "replace"))

    def _watch(self) -> None:
        """Kill it when its answer is overdue."""
        while not self._over.wait(POLL):
            overdue = self._overdue
            if overdue is not None and time.monotonic() > overdue:
                self._late = True
                self._process.kill()

    def _join(self) -> None:
        """Wait for the threads once the child is dead."""
        self._over.set()
        for thread in self._threads:
            thread.join(JOINED)


def _start() -> "subprocess.Popen[bytes]":
    """A child that waits to be told what to do, out of the terminal's reach: Ctrl-C is ours."""
    kept = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    session: dict[str, Any] = (
        {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if sys.platform == "win32"
        else {"start_new_session": True}
    )
    try:
        return subprocess.Popen(
            python(PROGRAM),
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Libraries look for others there; in the artifact's own folder they would find some.
            cwd=Path(__file__).parent,
            env=kept | ENVIRONMENT,
            **session,
        )
    except OSError as error:
        raise RequestError(
            f"no process could be started to run the artifact in: {error.strerror or error}"
        ) from error


def _of(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "every stream of the child is a pipe"
    return stream
