"""llama.cpp: GGUF files, its mixtures of block formats, its runtime.

Importing this package needs neither `gguf` nor llama.cpp nor the compiled kernels; each room is
entered when it is first used.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import Survey
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import Grid
from phiquant.targets.gguf.footprint import footprint
from phiquant.targets.gguf.form import TYPES, GgufForm, read_form
from phiquant.targets.gguf.locate import is_gguf
from phiquant.targets.gguf.mixtures import BLOCK, DEFAULTS
from phiquant.targets.importance import ImatrixDataset, ImatrixEntry, Importance, ImportanceFiles
from phiquant.targets.target import Artifact, Runner, Target, WriterMemory
from phiquant.targets.writing import Writer


class _Grids(Mapping[str, Grid]):
    """The grids by ggml's type names, imported when the first is taken."""

    def __getitem__(self, name: str) -> Grid:
        from phiquant.targets.gguf.grids import GRIDS

        return GRIDS[name]

    def __iter__(self) -> Iterator[str]:
        return iter(BLOCK)

    def __len__(self) -> int:
        return len(BLOCK)


def _plan(architecture: Architecture, survey: Survey, form: GgufForm) -> Plan:
    from phiquant.targets.gguf.planner import plan

    return plan(architecture, survey, form)


def _choices(row: PlanRow, form: GgufForm, survey: Survey) -> tuple[PlanRow, ...]:
    from phiquant.targets.gguf.choices import choices

    return choices(row, form, survey)


def _type_of(rows: Sequence[PlanRow]) -> str:
    from phiquant.targets.gguf.choices import type_of

    return type_of(rows)


def _writer(plan: Plan, checkpoint: Checkpoint, form: GgufForm, directory: Path) -> Writer:
    from phiquant.targets.gguf.writer import open_writer

    return open_writer(plan, checkpoint, directory)


def _prepare(checkpoint: Checkpoint) -> tuple[str, ...]:
    from phiquant.targets.gguf.vocabulary import vocabulary_of

    return checkpoint.once(vocabulary_of).deviations


def _open(path: Path) -> Artifact:
    from phiquant.targets.gguf.artifact import GgufArtifact

    return GgufArtifact(path)


def _runner(path: Path) -> Runner:
    from phiquant.targets.gguf.runner import GgufRunner

    return GgufRunner(path)


def _render(path: Path, messages: Sequence[Mapping[str, str]]) -> str | None:
    from phiquant.targets.gguf.locate import gguf_files
    from phiquant.targets.gguf.template_engine import render

    return render(gguf_files(path)[0], messages)


def _read_importance(path: Path, architecture: Architecture) -> Importance:
    from phiquant.targets.gguf.importance import read_importance

    return read_importance(path, architecture)


def _write_importance(
    path: Path, entries: Mapping[str, ImatrixEntry], text: ImatrixDataset, suffix: str
) -> None:
    from phiquant.targets.gguf.importance import write_importance

    write_importance(path, entries, text, suffix)


def _command(path: Path) -> str:
    from phiquant.targets.gguf.command import command

    return command(path)


def _command_here(path: Path) -> str | None:
    from phiquant.targets.gguf.command import command_here

    return command_here(path)


TARGET = Target(
    name="gguf",
    title="llama.cpp",
    grids=_Grids(),
    types=TYPES,
    defaults=DEFAULTS,
    read=read_form,
    plan=_plan,
    choices=_choices,
    type_of=_type_of,
    new_writer=_writer,
    writing=WriterMemory(fixed=5 << 20, a_token=190),
    footprint=footprint,
    recognises=is_gguf,
    open=_open,
    runner=_runner,
    render=_render,
    library="gguf",
    command=_command,
    command_here=_command_here,
    prepare=_prepare,
    importance=ImportanceFiles(_read_importance, _write_importance),
)
