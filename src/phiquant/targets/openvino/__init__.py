"""OpenVINO: an IR that openvino_genai and optimum-intel load, for Intel CPUs, GPUs and NPUs.

This folder imports openvino only when an artifact is written or run.
"""

from pathlib import Path

from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.targets.openvino.artifact import open_artifact, recognises
from phiquant.targets.openvino.choices import choices, type_of
from phiquant.targets.openvino.footprint import footprint
from phiquant.targets.openvino.form import OPTIONS, OpenVinoForm, read_form
from phiquant.targets.openvino.formats import DEFAULTS, GRIDS, TYPES
from phiquant.targets.openvino.planner import plan
from phiquant.targets.openvino.running import command
from phiquant.targets.target import Runner, Target, WriterMemory
from phiquant.targets.writing import Writer


def _writer(plan: Plan, checkpoint: Checkpoint, form: OpenVinoForm, directory: Path) -> Writer:
    from phiquant.targets.openvino.writer import OpenVinoWriter

    return OpenVinoWriter(plan, checkpoint, form, directory)


def _prepare(checkpoint: Checkpoint) -> tuple[str, ...]:
    from phiquant.targets.openvino.tokenizer_ir import deviations, proved_tokenizer

    checkpoint.once(proved_tokenizer)
    return deviations(checkpoint.tokenizer)


def _runner(path: Path) -> Runner:
    from phiquant.targets.openvino.runner import OpenVinoRunner

    return OpenVinoRunner(path)


TARGET = Target(
    name="openvino",
    title="OpenVINO",
    grids=GRIDS,
    types=TYPES,
    defaults=DEFAULTS,
    read=read_form,
    plan=plan,
    choices=choices,
    type_of=type_of,
    new_writer=_writer,
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
