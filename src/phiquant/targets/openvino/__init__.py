"""OpenVINO: an IR that openvino_genai and optimum-intel load, for Intel CPUs, GPUs and NPUs.

This folder imports openvino only when an artifact is written or run.
"""

from pathlib import Path

from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.recipe import Recipe
from phiquant.targets.openvino.artifact import open_artifact, recognises
from phiquant.targets.openvino.choices import choices, type_of
from phiquant.targets.openvino.footprint import footprint
from phiquant.targets.openvino.formats import DEFAULTS, GRIDS, TYPES
from phiquant.targets.openvino.planner import plan
from phiquant.targets.openvino.profiles import OPTIONS
from phiquant.targets.openvino.running import command
from phiquant.targets.target import Runner, Target, Writer, WriterMemory


def _writer(plan: Plan, checkpoint: Checkpoint, recipe: Recipe, directory: Path) -> Writer:
    from phiquant.targets.openvino.writer import OpenVinoWriter

    return OpenVinoWriter(plan, checkpoint, recipe, directory)


def _prepare(checkpoint: Checkpoint) -> None:
    from phiquant.targets.openvino.tokenizer_ir import proved_tokenizer

    checkpoint.once(proved_tokenizer)


def _runner(path: Path) -> Runner:
    from phiquant.targets.openvino.runner import OpenVinoRunner

    return OpenVinoRunner(path)


TARGET = Target(
    name="openvino",
    title="OpenVINO",
    grids=GRIDS,
    types=TYPES,
    defaults=DEFAULTS,
    plan=plan,
    choices=choices,
    type_of=type_of,
    writer=_writer,
    writing=WriterMemory(fixed=63 << 20, a_token=350),
    footprint=footprint,
    recognises=recognises,
    open=open_artifact,
    runner=_runner,
    library="openvino",
    command=command,
    prepare=_prepare,
    options=OPTIONS,
    apart=True,
)
