"""ONNX: a directory that onnxruntime-genai loads, on CPUs, GPUs and phones.

This folder imports onnx_ir when an artifact is written or opened, and the runtimes when one is
run; planning needs neither.
"""

from pathlib import Path

from phiquant.errors import MissingDependency
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan
from phiquant.targets.onnx.choices import choices, type_of
from phiquant.targets.onnx.command import command
from phiquant.targets.onnx.footprint import footprint
from phiquant.targets.onnx.formats import DEFAULTS, GRIDS, OPTIONS, TYPES, OnnxForm, read_form
from phiquant.targets.onnx.planner import plan
from phiquant.targets.onnx.tokenizer_text import onnx_tokenizer_files
from phiquant.targets.target import Artifact, Runner, Target, WriterMemory
from phiquant.targets.writing import Writer


def _writer(made: Plan, checkpoint: Checkpoint, form: OnnxForm, directory: Path) -> Writer:
    _need_onnx_ir("writing an ONNX artifact")
    from phiquant.targets.onnx.writer import OnnxWriter

    return OnnxWriter(made, checkpoint, form, directory)


def _prepare(checkpoint: Checkpoint) -> tuple[str, ...]:
    return onnx_tokenizer_files(checkpoint).notes


def _open(path: Path) -> Artifact:
    _need_onnx_ir("reading an ONNX artifact")
    from phiquant.targets.onnx.artifact import open_artifact

    return open_artifact(path)


def _runner(path: Path) -> Runner:
    from phiquant.targets.onnx.runner import OnnxRunner

    return OnnxRunner(path)


def _recognises(path: Path) -> bool:
    return (path / "genai_config.json").is_file() and any(path.glob("*.onnx"))


def _need_onnx_ir(purpose: str) -> None:
    try:
        import onnx_ir  # noqa: F401
    except ImportError as error:
        raise MissingDependency("onnx-ir", purpose) from error


TARGET = Target(
    name="onnx",
    title="ONNX Runtime GenAI",
    grids=GRIDS,
    types=TYPES,
    defaults=DEFAULTS,
    read=read_form,
    plan=plan,
    choices=choices,
    type_of=type_of,
    new_writer=_writer,
    writing=WriterMemory(fixed=38 << 20, a_token=110),
    footprint=footprint,
    recognises=_recognises,
    open=_open,
    runner=_runner,
    library="onnx",
    command=command,
    prepare=_prepare,
    options=OPTIONS,
    apart=True,
)
