"""Running `phiquant` in tests: as a process of its own, or inside this one where that is faster."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import typer.main

from phiquant.cli.main import main
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

# The parser of the command line is built for milliseconds, and here for thousands of commands.
typer.main.get_command = cache(typer.main.get_command)

COMMAND = (sys.executable, "-m", "phiquant")
HIDDEN = Path(__file__).parent / "hidden"
"""Modules that stand before packages which only tests need."""
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(first_on_path=None, **changes):
    """This process's environment, in which the same sources are found.

    Modules in the directory `first_on_path` are found before any other.
    """
    paths = [str(path) for path in (first_on_path, HIDDEN, *sys.path) if path]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | changes


def run(*words, first_on_path=None, environ=None, **options):
    """`phiquant words...` as a process of its own; pytest's own time limit is its limit."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        env=environment(first_on_path, **(environ or {})),
        check=False,
        **options,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def start(*words, first_on_path=None, environ=None, **options):
    """`phiquant words...` as a process that goes on while the test does."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(first_on_path, **(environ or {})),
        **options,
    )


@contextmanager
def contained(process):
    """A block that `process` does not outlive, whatever ends the block."""
    with process:
        try:
            yield process
        finally:
            process.kill()


def call(*words, stream=StringIO):
    """`phiquant words...` inside this process; its output goes to two of `stream`."""
    out, err = stream(), stream()
    before = sys.argv, {number: signal.getsignal(number) for number in SIGNALS}
    sys.argv = ["phiquant", *map(str, words)]
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv, handlers = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Ended(code, out.getvalue(), err.getvalue())


def tiny_model(directory, **changes):
    """A checkpoint with a tokenizer whose ends its config names; returns the directory."""
    tokens = write_tiny_tokenizer(Path(directory), 512)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
    ids = {"bos_token_id": tokens.bos, "eos_token_id": [tokens.end, tokens.eos]}
    return write_tiny_checkpoint(directory, **(shape | ids | changes))


def payload(directory):
    """Path → bytes of every file that was made, but the records, which tell the time."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.name not in ("phiquant.json", "README.md")
    }


def assert_same_payload(made, expected):
    """Two directories hold the same files, whose bytes are too many to be shown."""
    made, expected = payload(made), payload(expected)
    assert made.keys() == expected.keys()
    assert made
    assert [name for name in made if made[name] != expected[name]] == []


def files_in(directory):
    """Every path under `directory`, hidden ones too."""
    return sorted(str(path.relative_to(directory)) for path in Path(directory).rglob("*"))


def assert_refused(ended, code, *words):
    """One sentence or a few on stderr that name `words`, and nothing else anywhere."""
    assert ended.code == code, ended
    assert ended.out == ""
    told = [line for line in ended.err.splitlines() if line.startswith("phiquant: ")]
    assert len(told) == 1, ended.err
    assert ended.err.endswith(told[0] + "\n")
    assert "Traceback" not in ended.err
    assert "bug in phiquant" not in ended.err
    for word in words:
        assert word in told[0]
