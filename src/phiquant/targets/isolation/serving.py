"""The child's side of `isolated`: loads one artifact, shut in, and answers questions about it.

The first line on stdin says how it is shut in. After that stdin and stdout carry frames
(`frames.py`), a question and its answer at a time. What a runtime prints goes to stderr.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from traceback import format_exc
from typing import Any, BinaryIO

from phiquant.host.confinement import confine
from phiquant.host.limits import die_with, limit_resources
from phiquant.host.telemetry import no_telemetry

LONGEST = 4000
"""Characters of an error that are told; some runtimes show a whole template."""


def serve() -> None:
    """Answer until stdin ends."""
    questions, answers = _own_streams()
    request = _first_line(questions)
    sys.dont_write_bytecode = True
    die_with(request["parent"])
    limit_resources(request["memory"], request["processor_seconds"])
    # Before anything starts threads, as NumPy does: see `confinement`.
    confined = confine(map(Path, request["readable"]))
    no_telemetry()
    from phiquant.targets.isolation.frames import send
    from phiquant.targets.table import target

    served = Served(target(request["target"]), confined)
    waiting = _listen(questions)
    while True:
        answer = _answer(served, waiting.get())
        send(answers, answer, answer.pop("array", None))


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The pipes, out of reach of what reads stdin or prints."""
    pipes = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(pipes[0], "rb", 0), os.fdopen(pipes[1], "wb", 0)


def _first_line(questions: BinaryIO) -> dict[str, Any]:
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = questions.read(1)
        if not piece:
            sys.exit(0)
        line += piece
    request: dict[str, Any] = json.loads(line)
    return request


def _listen(questions: BinaryIO) -> "queue.SimpleQueue[dict[str, Any]]":
    """Read questions in a thread of their own, which notices at once that nobody asks any more."""
    from phiquant.targets.isolation.frames import receive

    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                waiting.put(receive(questions)[0])
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


class Served:
    """The questions that are answered: a method each, which gives what JSON has."""

    def __init__(self, target: Any, confined: Sequence[str]) -> None:  # noqa: ANN401
        """`target` is a `targets.target.Target`, which is not imported before we are shut in."""
        self._target, self._confined = target, confined
        self._runner: Any = None

    def load(self, path: str) -> dict[str, Any]:
        runner = self._runner = self._target.runner(Path(path))
        return {"runtime": runner.runtime, "slow": runner.slow, "confined": self._confined}

    def chat_template(self) -> dict[str, Any]:
        return {"text": self._runner.chat_template}

    def tokenize(self, text: str) -> dict[str, Any]:
        return {"tokens": self._runner.tokenize(text)}

    def render(self, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        return {"text": self._runner.render(messages)}

    def stops_at(self, token: int) -> dict[str, Any]:
        return {"stops": bool(self._runner.stops_at(token))}

    def logits(self, tokens: Sequence[int], last: int | None) -> dict[str, Any]:
        import numpy as np

        return {"array": self._runner.logits(np.array(tokens, np.int32), last)}

    def generate(self, prompt: Sequence[int], limit: int) -> dict[str, Any]:
        import numpy as np

        made = self._runner.generate(np.array(prompt, np.int32), limit)
        return {
            "tokens": list(made.tokens),
            "text": made.text,
            "stopped": made.stopped,
            "seconds": made.seconds,
        }


def _answer(served: Served, question: dict[str, Any]) -> dict[str, Any]:
    """What the question comes to, or the error that it ends in, in words."""
    from phiquant.errors import PhiquantError

    try:
        answer: dict[str, Any] = getattr(served, question.pop("call"))(**question)
        return answer
    except PhiquantError as error:
        return {"error": type(error).__name__, "message": str(error)[:LONGEST]}
    except BaseException as error:  # a panic inside a Rust library is no Exception
        asked = os.environ.get("PHIQUANT_TRACEBACK")
        message = format_exc() if asked else f"{type(error).__name__}: {error}"
        return {"error": "Exception", "message": message[:LONGEST]}
