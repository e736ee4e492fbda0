"""Whom `accuracy.py` compares with, and what is asked of this tool in each comparison.

A `Peer` is an artifact that another tool makes. A `Match` names the peer, what this tool is asked
for in its place, and the bar: the greatest allowed ratio of the two mean divergences for each
model. The size asked for is the peer's own bytes of tensor data.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import contenders
from contenders import PEERS as SCRIPTS
from contenders import Command, Task

from phiquant.targets.table import target as known

AUTOROUND = "autoround"
BOTH = ("tied", "untied")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A sample of the calibration text that comes with this tool."""

    sequences: int
    length: int

    def file(self, task: Task) -> Path:
        """Where the sample for the task's model lies as a .npy file."""
        return task.work.parent / f"tokens-{self.sequences}x{self.length}.npy"


@dataclass(frozen=True, slots=True)
class Peer:
    """An artifact of another tool: how it is made, and in which runtime it runs."""

    name: str
    title: str
    target: str | None
    """None for bare weights, which the reference forward runs."""
    command: Callable[[Task], Command]
    models: tuple[str, ...] = BOTH
    tokens: Tokens | None = None
    """The sample that it is given, where it wants one."""


OPENVINO_SAMPLE = Tokens(128, 500)
MLX_SAMPLE = Tokens(16, 500)
MLX_GRADIENT_SAMPLE = Tokens(8, 500)
"""Short, for MLX is slow on a CPU, and slower still with gradients."""
AUTOROUND_SAMPLE = Tokens(64, 500)


def openvino_calibrated(task: Task) -> Command:
    script: Command = [task.openvino_peers, SCRIPTS / "openvino_calibrated.py", task.checkpoint]
    return [*script, OPENVINO_SAMPLE.file(task), task.work / "intermediate", task.output]


def mlx_calibrated(method: str, sample: Tokens) -> Callable[[Task], Command]:
    def command(task: Task) -> Command:
        script: Command = [task.peers, SCRIPTS / "mlx_calibrated.py", method, task.checkpoint]
        return [*script, sample.file(task), task.output]

    return command


def autoround(task: Task) -> Command:
    script: Command = [task.autoround_peers, SCRIPTS / "autoround.py", task.checkpoint]
    return [*script, AUTOROUND_SAMPLE.file(task), task.output / "weights.safetensors"]


PEERS = (
    Peer("gguf-q4-k-m", "llama-quantize Q4_K_M", "gguf", contenders.llama_cpp("Q4_K_M")),
    Peer("gguf-q4-0", "llama-quantize Q4_0", "gguf", contenders.llama_cpp("Q4_0")),
    Peer("onnx", "onnxruntime-genai builder, int4 cpu", "onnx", contenders.genai_builder),
    Peer("openvino", "optimum-cli, int4 sym g64", "openvino", contenders.optimum),
    Peer(
        "openvino-calibrated",
        "optimum-cli, int4 sym g64, AWQ + scale estimation + GPTQ",
        "openvino",
        openvino_calibrated,
        tokens=OPENVINO_SAMPLE,
    ),
    Peer("mlx", "mlx_lm.convert, 4-bit g64", "mlx", contenders.mlx_lm),
    Peer("mlx-gptq", "mlx_lm.gptq", "mlx", mlx_calibrated("gptq", MLX_SAMPLE), tokens=MLX_SAMPLE),
    Peer(
        "mlx-dynamic",
        "mlx_lm.dynamic_quant",
        "mlx",
        mlx_calibrated("dynamic", MLX_GRADIENT_SAMPLE),
        tokens=MLX_GRADIENT_SAMPLE,
    ),
    Peer(
        AUTOROUND,
        "AutoRound, W4 group 32 asymmetric, 200 iterations",
        None,
        autoround,
        ("untied",),
        AUTOROUND_SAMPLE,
    ),
)


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison: ours in the peer's place. `bars` has the models that it is made for."""

    peer: str
    what: str
    target: str
    bars: Mapping[str, float]
    arguments: tuple[str, ...] = ()
    """What `phiquant quantize` is told beside target, quality and size."""
    below: bool = False
    """Whether the bar itself is a miss: "better than" the peer."""
    sized: bool = True
    """Whether the peer's bytes are asked for; False where the types alone settle the size."""
    time_bar: float | None = None
    """The greatest allowed ratio of processor times, where one is set."""


def both(bar: float) -> dict[str, float]:
    return dict.fromkeys(BOTH, bar)


# OpenVINO's u4 in groups of 32 is AutoRound's grid to the bit: scales in FP16, 4-bit zero points.
MATCHES = (
    Match("gguf-q4-k-m", "GGUF Q4_K_M", "gguf", both(0.35)),
    Match("gguf-q4-0", "GGUF Q4_0", "gguf", both(0.25), ("--type", "Q4_0"), sized=False),
    Match("onnx", "ONNX INT4 block 32", "onnx", {"tied": 0.2, "untied": 0.05}),
    Match("openvino", "OpenVINO INT4 sym g64", "openvino", both(0.2)),
    Match(
        "openvino-calibrated",
        "OpenVINO, peer with AWQ + scale estimation + GPTQ",
        "openvino",
        both(1.0),
        below=True,
    ),
    Match("mlx", "MLX 4-bit g64", "mlx", both(0.2)),
    Match("mlx-gptq", "MLX, peer with GPTQ", "mlx", both(1.0), below=True),
    Match("mlx-dynamic", "MLX, peer with dynamic quantization", "mlx", both(1.0), below=True),
    Match(
        AUTOROUND,
        "AutoRound's grid and text",
        "openvino",
        {"untied": 1.0},
        ("--type", "int4-asym-g32"),
        sized=False,
        time_bar=0.1,
    ),
)

INT8_BAR = 0.01
INT8_TARGETS = ("gguf", "onnx", "openvino", "mlx")
PROTECTED_TARGETS = tuple(name for name in INT8_TARGETS if known(name).apart)


@dataclass(frozen=True, slots=True)
class Request:
    """What `phiquant quantize` is asked for."""

    name: str
    """The artifact's directory under the model's."""
    target: str
    arguments: tuple[str, ...] = ()
    size: int | None = None
    """The most bytes of tensor data."""
    quality: str = field(kw_only=True)

    def command(self, task: Task) -> Command:
        """The words of the command line."""
        start: Command = [sys.executable, "-m", "phiquant", "quantize", task.checkpoint]
        return [*start, *self.words, "-o", task.output, "--json"]

    @property
    def words(self) -> tuple[str, ...]:
        """What stands between the model and the output."""
        words = ("--to", self.target, *self.arguments)
        if self.quality == "fast":  # the default; it takes each type as it comes
            return words
        size = ("--max-size", f"{self.size}B") if self.size is not None else ()
        return (*words, "--quality", self.quality, *size)


CALIBRATION = {AUTOROUND: ("--calibration-size", "64x500")}
"""What our side is told of the text, by match; elsewhere its own default holds."""


def requested(match: Match, size: int, quality: str) -> Request:
    """Ours in the place of a peer of `size` bytes."""
    arguments = match.arguments
    if quality != "fast":
        arguments += CALIBRATION.get(match.peer, ())
    name = f"ours-{quality}-{match.peer}"
    return Request(name, match.target, arguments, size if match.sized else None, quality=quality)


def requested_int8(target: str, quality: str) -> Request:
    """INT8 of a target, as it comes."""
    name = f"ours-{quality}-int8-{target}"
    return Request(name, target, ("--precision", "int8"), quality=quality)


def requested_protection(target: str, quality: str) -> tuple[Request, Request]:
    """INT4 of a target as it comes, with its values protected, and with the type alone."""
    type = known(target).defaults["int4"]
    plain = Request(f"ours-{quality}-plain-{target}", target, ("--type", type), quality=quality)
    return Request(f"ours-{quality}-protected-{target}", target, quality=quality), plain


def requested_size(target: str, size: int, quality: str) -> Request:
    """One point of a target's curve."""
    return Request(f"ours-{quality}-curve-{target}-{size}", target, (), size, quality=quality)
