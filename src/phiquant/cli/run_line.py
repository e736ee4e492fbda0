"""The line that runs an artifact, to be typed where phiquant was run, with programs that are there.

Whoever runs phiquant from an environment that is not activated has another `python` on the path, or
none, and the programs of the environment's packages not at all; the line then names them in full.
"""

import shlex
import shutil
import sys
from pathlib import Path

from phiquant.targets.table import target


def run_line(directory: Path, target_name: str) -> str:
    """Go to the artifact's directory and run it. Raises InputError for a damaged artifact."""
    of = target(target_name)
    command = of.command(directory)
    if _found(_program(command)) is None:
        command = of.command_here(directory) or command
    return f"cd {shlex.quote(str(directory))} && {in_full(command)}"


def in_full(command: str) -> str:
    """`command` with its program in full, unless the path leads to that very program."""
    program = _program(command)
    return shlex.quote(_found(program) or program) + command.removeprefix(program)


def _program(command: str) -> str:
    return command.split(maxsplit=1)[0]


def _found(program: str) -> str | None:
    """The program as it is to be typed: beside the running Python, or on the path."""
    on_path = shutil.which(program)
    here = sys.executable if program == "python" else shutil.which(program, path=_folder())
    if here is None:
        return None if on_path is None else program
    return program if on_path is not None and _same(on_path, here) else here


def _folder() -> str:
    return str(Path(sys.executable).parent)


def _same(path: str, other: str) -> bool:
    """Not by what links lead to: the Python of an environment is a link to the system's."""
    return Path(path).absolute() == Path(other).absolute()
