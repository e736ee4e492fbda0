"""MLX: a directory of safetensors that `mlx_lm` loads, on a Mac or (slowly) on any CPU.

This folder imports neither mlx nor mlx_lm until an artifact is run.
"""

from pathlib import Path

from phiquant.phi.checkpoint import Checkpoint
from phiquant.targets.mlx.artifact import open_artifact, recognises
from phiquant.targets.mlx.choices import choices, type_of
from phiquant.targets.mlx.footprint import footprint
from phiquant.targets.mlx.formats import DEFAULTS, GRIDS, TYPES, read_form
from phiquant.targets.mlx.planner import plan
from phiquant.targets.mlx.writer import MlxWriter
from phiquant.targets.target import Runner, Target, WriterMemory
from phiquant.targets.tokenizer_files import read_tokenizer_files


def _runner(path: Path) -> Runner:
    from phiquant.targets.mlx.runner import MlxRunner

    return MlxRunner(path)


def _prepare(checkpoint: Checkpoint) -> tuple[str, ...]:
    return read_tokenizer_files(checkpoint).notes


def _command(path: Path) -> str:
    return 'mlx_lm.generate --model . --prompt "Why is the sky blue?" --max-tokens 200'


TARGET = Target(
    name="mlx",
    title="MLX",
    grids=GRIDS,
    types=TYPES,
    defaults=DEFAULTS,
    read=read_form,
    plan=plan,
    choices=choices,
    type_of=type_of,
    new_writer=MlxWriter,
    writing=WriterMemory(fixed=2 << 20, a_token=60),
    footprint=footprint,
    recognises=recognises,
    open=open_artifact,
    runner=_runner,
    library="mlx",
    command=_command,
    prepare=_prepare,
)
