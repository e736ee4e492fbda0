"""The commands that are timed: this tool's and its peers', as a person would type them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).parent / "peers"

Command = list[str | Path]


@dataclass(frozen=True, slots=True)
class Task:
    """One job for a contender: the checkpoint, where to work, the peers' Python, the threads."""

    checkpoint: Path
    work: Path
    peers: Path
    threads: int

    @property
    def output(self) -> Path:
        """The directory that the finished artifact is in; its parent is watched."""
        return self.work / "output"

    @property
    def openvino_peers(self) -> Path:
        """The Python of optimum-intel's environment: it wants an older transformers than mlx-lm."""
        return self._beside("openvino")

    @property
    def autoround_peers(self) -> Path:
        """The Python of AutoRound's environment."""
        return self._beside("autoround")

    def _beside(self, name: str) -> Path:
        home = self.peers.parent.parent
        return home.with_name(f"{home.name}-{name}") / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Contender:
    """A tool at one job: how it is called, and how to prove that its output loads."""

    name: str
    title: str
    command: Callable[[Task], Command]
    checks: Callable[[Task], list[Command]]

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("ours")


def ours(targets: str) -> Callable[[Task], Command]:
    """`phiquant quantize` as this interpreter has it installed."""

    def command(task: Task) -> Command:
        start: Command = [sys.executable, "-m", "phiquant", "quantize", task.checkpoint]
        form: Command = ["--precision", "int4", "--quality", "data-free"]
        return [*start, "--to", targets, *form, "-o", task.output, "--json"]

    return command


def llama_cpp(type: str) -> Callable[[Task], Command]:
    def command(task: Task) -> Command:
        intermediate = task.work / "intermediate.gguf"
        start: Command = [task.peers, PEERS / "llama_quantize.py", task.checkpoint, intermediate]
        output = task.output / "model.gguf"
        return [*start, output, "--type", type, "--threads", str(task.threads)]

    return command


def mlx_lm(bits: int = 4) -> Callable[[Task], Command]:
    def command(task: Task) -> Command:
        start: Command = [task.peers, "-m", "mlx_lm", "convert", "--hf-path", task.checkpoint]
        form: Command = ["-q", "--q-bits", str(bits), "--q-group-size", "64"]
        return [*start, "--mlx-path", task.output, *form]

    return command


def genai_builder(*options: str) -> Callable[[Task], Command]:
    """INT4 for a processor; `options` are extra ones, KEY=VALUE."""

    def command(task: Task) -> Command:
        tool: Command = [task.peers, "-m", "onnxruntime_genai.models.builder"]
        cache = task.work / "temporary" / "builder"
        form: Command = ["-p", "int4", "-e", "cpu", "-c", cache]
        extra: Command = ["--extra_options", *options] if options else []
        return [*tool, "-i", task.checkpoint, "-o", task.output, *form, *extra]

    return command


def optimum(*form: str) -> Callable[[Task], Command]:
    """`form` are the words that say the weights' format."""

    def command(task: Task) -> Command:
        tool = task.openvino_peers.parent / "optimum-cli"
        start: Command = [tool, "export", "openvino", "-m", task.checkpoint]
        return [*start, "--task", "text-generation-with-past", *form, task.output]

    return command


OPTIMUM_ASYM = ("--weight-format", "int4", "--group-size", "64")
OPTIMUM_SYM = (*OPTIMUM_ASYM, "--sym")


def loads_in_openvino(folder: str = "") -> Callable[[Task], list[Command]]:
    return lambda task: [[task.openvino_peers, PEERS / "load_openvino.py", task.output / folder]]


def loads_in_llama_cpp(folder: str = "") -> Callable[[Task], list[Command]]:
    def checks(task: Task) -> list[Command]:
        (file,) = (task.output / folder).glob("*.gguf")
        return [[task.peers, PEERS / "load_gguf.py", file]]

    return checks


def loads_in_mlx(folder: str = "") -> Callable[[Task], list[Command]]:
    return lambda task: [[task.peers, PEERS / "load_mlx.py", task.output / folder]]


def loads_in_genai(task: Task) -> list[Command]:
    return [[task.peers, PEERS / "load_genai.py", task.output]]


def loads_in_both(task: Task) -> list[Command]:
    return loads_in_llama_cpp("gguf")(task) + loads_in_mlx("mlx")(task)


CONTENDERS = (
    Contender(
        "peer-gguf",
        "convert_hf_to_gguf + llama-quantize, Q4_K_M",
        llama_cpp("Q4_K_M"),
        loads_in_llama_cpp(),
    ),
    Contender("ours-gguf", "phiquant, GGUF Q4_K_M", ours("gguf"), loads_in_llama_cpp()),
    Contender("peer-mlx", "mlx_lm.convert, 4-bit g64", mlx_lm(), loads_in_mlx()),
    Contender("ours-mlx", "phiquant, MLX 4-bit g64", ours("mlx"), loads_in_mlx()),
    Contender(
        "peer-onnx",
        "onnxruntime-genai builder, int4 cpu",
        genai_builder(),
        loads_in_genai,
    ),
    Contender("ours-onnx", "phiquant, ONNX int4-b32", ours("onnx"), loads_in_genai),
    Contender(
        "peer-openvino",
        "optimum-cli export openvino, int4 sym g64",
        optimum(*OPTIMUM_SYM),
        loads_in_openvino(),
    ),
    Contender(
        "ours-openvino",
        "phiquant, OpenVINO int4-sym-g64",
        ours("openvino"),
        loads_in_openvino(),
    ),
    Contender("ours-both", "phiquant, both from one reading", ours("gguf,mlx"), loads_in_both),
)
"""In the order of a round: each of ours right after the peer that it is compared with."""
