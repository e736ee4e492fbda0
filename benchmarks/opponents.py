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
from contenders import OPTIMUM_ASYM, OPTIMUM_SYM, Command, Task
from contenders import PEERS as SCRIPTS
from demo_models import HELD_OUT, TRAINED

from phiquant.targets.table import target as known

AUTOROUND = "autoround"
RESCALED = ("tied", "untied")
NATURAL = ("moved", "moved-untied")
CHECKS = (*HELD_OUT, *TRAINED)
UNTIED = ("untied", "moved-untied")
WITH_A_HEAD = (*UNTIED, "trained-untied")
EVERY = (*NATURAL, *CHECKS, *RESCALED)


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
    models: tuple[str, ...] = EVERY
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


def llama_quantize(type: str) -> Peer:
    name = f"gguf-{type.lower().replace('_', '-')}"
    return Peer(name, f"llama-quantize {type}", "gguf", contenders.llama_cpp(type))


def mlx_convert(bits: int) -> Peer:
    name = "mlx" if bits == FOUR else f"mlx-{bits}bit"
    return Peer(name, f"mlx_lm.convert, {bits}-bit g64", "mlx", contenders.mlx_lm(bits))


FOUR = 4
OTHER_LLAMA_TYPES = ("Q2_K", "Q3_K_M", "Q5_K_M", "Q6_K", "Q8_0")
OTHER_MLX_BITS = (3, 6, 8)
PEERS = (
    llama_quantize("Q4_K_M"),
    llama_quantize("Q4_0"),
    Peer("onnx", "onnxruntime-genai builder, int4 cpu", "onnx", contenders.genai_builder()),
    Peer(
        "onnx-asym",
        "onnxruntime-genai builder, int4 cpu, asymmetric",
        "onnx",
        contenders.genai_builder("is_symmetric=false"),
        WITH_A_HEAD,  # the builder's tied graph lacks the embedding's scales
    ),
    Peer("openvino", "optimum-cli, int4 sym g64", "openvino", contenders.optimum(*OPTIMUM_SYM)),
    Peer(
        "openvino-asym",
        "optimum-cli, int4 asym g64",
        "openvino",
        contenders.optimum(*OPTIMUM_ASYM),
    ),
    Peer(
        "openvino-int8",
        "optimum-cli, int8",
        "openvino",
        contenders.optimum("--weight-format", "int8"),
    ),
    Peer(
        "openvino-calibrated",
        "optimum-cli, int4 sym g64, AWQ + scale estimation + GPTQ",
        "openvino",
        openvino_calibrated,
        tokens=OPENVINO_SAMPLE,
    ),
    mlx_convert(FOUR),
    Peer("mlx-gptq", "mlx_lm.gptq", "mlx", mlx_calibrated("gptq", MLX_SAMPLE), tokens=MLX_SAMPLE),
    Peer(
        "mlx-dynamic",
        "mlx_lm.dynamic_quant",
        "mlx",
        mlx_calibrated("dynamic", MLX_GRADIENT_SAMPLE),
        tokens=MLX_GRADIENT_SAMPLE,
    ),
    *(llama_quantize(type) for type in OTHER_LLAMA_TYPES),
    *(mlx_convert(bits) for bits in OTHER_MLX_BITS),
    Peer(
        AUTOROUND,
        "AutoRound, W4 group 32 asymmetric, 200 iterations",
        None,
        autoround,
        UNTIED,
        AUTOROUND_SAMPLE,
    ),
)

Bars = Mapping[str, float]
CONVERTER: Bars = {"data-free": 0.92, "fast": 0.5, "balanced": 0.4, "best": 0.2}
MIXTURE: Bars = CONVERTER | {"fast": 0.65, "balanced": 0.5}
"""Of Q4_K_M, which gives much of the model 6 bits."""
CALIBRATED: Bars = {"best": 0.5}
NO_WORSE: Bars = {"data-free": 1.0, "fast": 1.0}
ON_CHECKS = 0.95
"""The least bar of `data-free` on models that nothing was chosen by."""


@dataclass(frozen=True, slots=True)
class Match:
    """One comparison: ours in the peer's place."""

    peer: str
    what: str
    target: str
    type: str
    """Ours of the same bytes."""
    bars: Bars
    """The greatest allowed ratio by quality, on networks as a training leaves them."""
    rescaled: Bars = field(default_factory=dict)
    """That of `best` on the re-scaled models, whatever the quality."""
    below: bool = False
    """Whether the bar itself is a miss on a re-scaled model: "better than" the peer."""
    sized: bool = True
    """Whether `best` is asked for the peer's bytes; False where the types alone settle the size."""
    time_bar: float | None = None
    """The greatest allowed ratio of processor times, where one is set."""

    def bar(self, model: str, quality: str) -> float | None:
        """The greatest allowed ratio; None where the two are not compared."""
        if model in RESCALED:
            return self.rescaled.get(model)
        if model not in BY_NAME[self.peer].models:
            return None
        bar = self.bars.get(quality)
        if bar is not None and model in CHECKS and quality == "data-free":
            return max(bar, ON_CHECKS)
        return bar


BY_NAME = {peer.name: peer for peer in PEERS}


def both(bar: float) -> dict[str, float]:
    return dict.fromkeys(RESCALED, bar)


# OpenVINO's u4 in groups of 32 is AutoRound's grid to the bit: scales in FP16, 4-bit zero points.
MATCHES = (
    Match("gguf-q4-k-m", "GGUF Q4_K_M", "gguf", "Q4_K_M", MIXTURE, both(0.35)),
    Match("gguf-q4-0", "GGUF Q4_0", "gguf", "Q4_0", CONVERTER, both(0.25), sized=False),
    Match(
        "onnx",
        "ONNX INT4 block 32",
        "onnx",
        "int4-b32-sym",
        CONVERTER,
        {"tied": 0.2, "untied": 0.05},
    ),
    Match("onnx-asym", "ONNX INT4 block 32, asymmetric", "onnx", "int4-b32", CONVERTER),
    Match("openvino", "OpenVINO INT4 sym g64", "openvino", "int4-sym-g64", CONVERTER, both(0.2)),
    Match("openvino-asym", "OpenVINO INT4 asym g64", "openvino", "int4-asym-g64", CONVERTER),
    Match(
        "openvino-calibrated",
        "OpenVINO, peer with AWQ + scale estimation + GPTQ",
        "openvino",
        "int4-sym-g64",
        CALIBRATED,
        both(1.0),
        below=True,
    ),
    Match("mlx", "MLX 4-bit g64", "mlx", "4bit-g64", CONVERTER, both(0.2)),
    Match("mlx-gptq", "MLX, peer with GPTQ", "mlx", "4bit-g64", CALIBRATED, both(1.0), below=True),
    Match(
        "mlx-dynamic",
        "MLX, peer with dynamic quantization",
        "mlx",
        "4bit-g64",
        CALIBRATED,
        both(1.0),
        below=True,
    ),
    Match(
        AUTOROUND,
        "AutoRound's grid and text",
        "openvino",
        "int4-asym-g32",
        CALIBRATED,
        {"untied": 1.0},
        sized=False,
        time_bar=0.1,
    ),
    *(
        Match(f"gguf-{type.lower().replace('_', '-')}", f"GGUF {type}", "gguf", type, NO_WORSE)
        for type in OTHER_LLAMA_TYPES
    ),
    *(
        Match(f"mlx-{bits}bit", f"MLX {bits}-bit g64", "mlx", f"{bits}bit-g64", NO_WORSE)
        for bits in OTHER_MLX_BITS
    ),
    Match("openvino-int8", "OpenVINO INT8", "openvino", "int8-asym", NO_WORSE),
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
        size = ("--max-size", f"{self.size}B") if self.size is not None else ()
        return ("--to", self.target, *self.arguments, "--quality", self.quality, *size)


CALIBRATION = {AUTOROUND: ("--calibration-size", "64x500")}
"""What our side is told of the text, by match; elsewhere its own default holds."""
CALIBRATING = ("balanced", "best")


def requested(match: Match, size: int, quality: str) -> Request:
    """Ours in a peer's place: `best` divides the peer's `size`, the others take the type."""
    extra = CALIBRATION.get(match.peer, ()) if quality in CALIBRATING else ()
    name = f"ours-{quality}-{match.peer}"
    if quality == "best" and match.sized:
        return Request(name, match.target, extra, size, quality=quality)
    return Request(name, match.target, ("--type", match.type, *extra), quality=quality)


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
