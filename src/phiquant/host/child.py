"""A program in a process of its own, which can be ended: for code that a model's files bring.

A chat template is a program by another hand, and a template engine runs it to the end. In a child
it can take neither more time than it is given, nor this process down with it.

The program is a Python file that reads one JSON document from stdin and prints one to stdout.
"""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """How a program ended."""

    document: dict[str, Any] | None
    """What it printed; None if it printed no JSON object."""
    messages: str
    """What it wrote to stderr, or why it was ended."""


def _how(code: int) -> str:
    if code < 0 and -code == getattr(signal, "SIGXCPU", None):
        return "it took more time to compute than it may"
    return f"it ended with the code {code}"


def ask(program: Path, request: object, seconds: float) -> Answer:
    """Run `program` with `request` (any JSON value), at most so many seconds."""
    if not sys.executable:  # Python is embedded in another program
        return Answer(None, "this Python cannot start another")
    # -P: the program's own folder, full of modules with short names, is no place to import from.
    command = [sys.executable, "-P", str(program)]
    try:
        ended = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, f"it took more than {seconds:g} seconds")
    except OSError as error:
        return Answer(None, f"no process could be started: {error.strerror or error}")
    messages = ended.stderr.decode(errors="replace").strip()
    try:
        document = json.loads(ended.stdout)
    except ValueError:
        return Answer(None, messages or _how(ended.returncode))
    return Answer(document if isinstance(document, dict) else None, messages)
