"""A program in a process of its own, which can be ended: for code that a model's files bring.

A chat template is a program by another hand, and a template engine runs it to the end. In a child
it can take neither more time than it is given, nor this process down with it.

The program is a Python file that reads one JSON document from stdin and prints one to stdout. It is
run to the end at once, after it has shut itself in (`confinement`, `limits`).
"""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
"""The folder that holds this package."""


def python(statements: str) -> list[str]:
    """The command that runs `statements` in a Python like this one, with this very phiquant.

    Nothing is imported from the folder that it is started in, nor from the package's own folders
    with their short names.
    """
    # Its modules are found through the package; its root may hold namesakes of Python's own.
    first = (
        f"import importlib, sys, typing; sys.path.insert(0, {str(ROOT)!r}); import phiquant; "
        "del sys.path[0]; "
    )
    return [sys.executable, "-P", "-c", first + statements]


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
    run = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    try:
        ended = subprocess.run(
            python(run),
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
