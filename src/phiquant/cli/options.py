"""The arguments and options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

Model = Annotated[
    str, typer.Argument(help="A checkpoint directory, or a Hugging Face id.", metavar="MODEL")
]
Outline = Annotated[
    str,
    typer.Argument(
        help="A directory with a config.json (no weights needed), a Hugging Face id, or the name "
        "of a Phi: Phi-4-mini-instruct, Phi-4, ...",
        metavar="MODEL",
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The directory to make; must not exist yet.")
]

To = Annotated[
    str,
    typer.Option(help="Targets, separated by commas: gguf (llama.cpp), mlx, onnx, openvino."),
]
Precision = Annotated[
    str, typer.Option(help="int4, int8, fp16 or fp32: each target's good default for it.")
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        help="A format of the target's own instead (Q4_K_M, 4bit-g64, ...); "
        "TARGET=TYPE where there are several targets. May be repeated."
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        help="Tokens the artifact is to serve, for runtimes that cannot switch LongRoPE's "
        "factors while they run (mlx). Default: the original training length."
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(help="onnx: cpu, mobile, cuda, dml or webgpu. Default: cpu."),
]
AccuracyLevel = Annotated[
    int | None,
    typer.Option(help="onnx: how MatMulNBits computes, 0 to 4. Default: 4 (int8) on CPUs."),
]
Qdq = Annotated[
    bool,
    typer.Option("--qdq", help="onnx: standard operators only (DequantizeLinear, opset 21)."),
]
OvDevice = Annotated[
    str | None,
    typer.Option(help="openvino: CPU, GPU or NPU. Default: CPU."),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        help="openvino, int4: the share of the layers' weights that gets 4 bits; the most "
        "sensitive get 8. Default: 1."
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", help="An option of a target's own, KEY=VALUE. May be repeated."),
]
