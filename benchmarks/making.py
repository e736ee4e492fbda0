"""Artifacts made once, measured while they are made, and kept with what that cost.

An artifact NAME of a model lies in WORK/MODEL/NAME/output, its `cost.json` beside it. It is made in
a directory of its own and renamed when it is whole, so what is there is complete.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from contenders import Command, Task
from machine import our_versions, tools_environment
from memory import Usage, measure

COST = "cost.json"


@dataclass(frozen=True, slots=True)
class Cost:
    """What making an artifact took. Seconds and bytes."""

    wall: float
    processor: float
    anonymous: int
    resident: int
    maker: str = "an earlier version"
    """The commit of ours that made it or, of a peer's, called it; earlier ones noted none."""


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact that is there."""

    path: Path
    cost: Cost


class MakingError(Exception):
    """A tool that ended with an error; the message has the end of what it said."""


def make(name: str, command: Callable[[Task], Command], task: Task, reuse: bool) -> Made:
    """The artifact `name` of the task's model, made by `command` unless it may be reused.

    `task.work` is WORK/MODEL/any; the command is given WORK/MODEL/NAME.making instead.
    Raises MakingError.
    """
    directory = task.work.parent / name
    if not (reuse and (directory / COST).is_file()):
        shutil.rmtree(directory, ignore_errors=True)
        making = task.work.parent / f"{name}.making"
        shutil.rmtree(making, ignore_errors=True)
        (making / "temporary").mkdir(parents=True)
        run(command, Task(task.checkpoint, making, task.peers, task.threads))
        making.rename(directory)
    cost = Cost(**json.loads((directory / COST).read_text()))
    return Made(directory / "output", cost)


def run(command: Callable[[Task], Command], task: Task) -> None:
    """Run a command that leaves `task.output`, and note what it cost."""
    environment = tools_environment(TMPDIR=str(task.work / "temporary"), HF_HUB_OFFLINE="1")
    words = command(task)
    usage = measure(words, None, environment)
    if usage.status:
        said = (usage.errors.strip() or usage.output.strip())[-1500:]
        raise MakingError(f"{' '.join(map(str, words))}\nended with {usage.status}: {said}")
    (task.work / COST).write_text(json.dumps(asdict(cost_of(usage)), indent=2) + "\n")
    for leftover in set(task.work.iterdir()) - {task.output, task.work / COST}:
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def cost_of(usage: Usage) -> Cost:
    maker = our_versions().get("commit", "no commit")[:7]
    return Cost(usage.wall, usage.user + usage.system, usage.anonymous, usage.resident, maker)
