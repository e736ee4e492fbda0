"""The arguments and options that several commands share, each declared once.

What an artifact may be asked to be is a whole family of options, shared by `quantize` and `plan`:
`request` declares them, and the decorator `takes_request` splices them into a command's own. Help
text is all that this module costs; the words become recipes when the command runs.
"""

from collections.abc import Callable
from functools import partial, wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phiquant.errors import RequestError

if TYPE_CHECKING:
    from phiquant.cli.request import Asked

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]

Model = Annotated[
    str,
    typer.Argument(
        help="A checkpoint directory, a Hugging Face id, or the address of its page.",
        metavar="MODEL",
    ),
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
Adapter = Annotated[
    str | None,
    typer.Option(
        help="A LoRA adapter over the model, as PEFT saves it: a directory, a hub id or its "
        "address. It is added as the weights are read."
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The directory to make; must not exist yet.")
]

To = Annotated[
    str | None,
    typer.Option(
        help="Targets, separated by commas: gguf (llama.cpp), mlx, onnx, openvino. Default: gguf."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="int4, int8, fp16 or fp32: each target's good default for it. Default: int4."
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Make what suits a device (`phiquant devices`; `this`; FILE.toml): `phiquant "
        "recommend` says what and why. --to, --precision and --context narrow the choice."
    ),
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
        help="Tokens the artifact is to serve. mlx: which of LongRoPE's factors it has; default "
        "the original training length. onnx: how long a sequence may get, for which "
        "onnxruntime-genai allocates its cache; default 4096."
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
BitsPerWeight = Annotated[
    float | None,
    typer.Option(help="Allocate bits to each tensor by its sensitivity: so many on average."),
]
MaxSize = Annotated[
    str | None,
    typer.Option(help="The same, for so many bytes of tensors: 2.2GB, 900MB, 87600000."),
]
MaxKl = Annotated[
    float | None,
    typer.Option(help="The same, for the least bytes that diverge by so many nats a token."),
]
Quality = Annotated[
    str,
    typer.Option(
        help="data-free: from the weights alone. fast: weighed by how inputs are used, after a "
        "glance at some dozens of tokens. balanced: the same after thousands; minutes. best: layer "
        "by layer with feedback, on a calibration text; minutes to hours. The latter two keep "
        "attention's values at 8 bits in onnx and openvino, unless a type is asked for."
    ),
]
NoRescaling = Annotated[
    bool,
    typer.Option(
        "--no-rescaling",
        help="Keep every channel's scale, as adapters (LoRA) made for the "
        "checkpoint need it; costs accuracy.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="UTF-8 text or .jsonl for balanced, best, budgets and --imatrix-out; default: the one "
        "shipped."
    ),
]
CalibrationSize = Annotated[str, typer.Option(help="Sequences x tokens to calibrate on, at most.")]

Imatrix = Annotated[
    Path | None,
    typer.Option(help="balanced: a llama.cpp importance matrix (GGUF or .dat), instead of a text."),
]
ImatrixOut = Annotated[
    Path | None,
    typer.Option(
        help="Leave an importance matrix for llama.cpp here, made over the calibration text; "
        "in the older encoding if it ends in .dat."
    ),
]


def request(
    to: To = None,
    precision: Precision = None,
    device: Device = None,
    type: Types = None,
    bits_per_weight: BitsPerWeight = None,
    max_size: MaxSize = None,
    max_kl: MaxKl = None,
    context: Context = None,
    provider: Provider = None,
    accuracy_level: AccuracyLevel = None,
    qdq: Qdq = False,
    ov_device: OvDevice = None,
    ratio: Ratio = None,
    option: Options = None,
    quality: Quality = "fast",
    no_rescaling: NoRescaling = False,
    calibration: Calibration = None,
    calibration_size: CalibrationSize = "128x512",
    imatrix: Imatrix = None,
    imatrix_out: ImatrixOut = None,
    revision: Revision = None,
    adapter: Adapter = None,
) -> "Asked":
    """What the words ask for. Raises RequestError."""
    from phiquant.cli import request as reading
    from phiquant.recipe import ImatrixFiles, Recipe
    from phiquant.targets.table import DEFAULT

    budget = reading.budget(bits_per_weight, max_size, max_kl)
    words = reading.option_words(
        provider=provider,
        accuracy_level=accuracy_level,
        qdq=qdq,
        ov_device=ov_device,
        ratio=ratio,
    )
    words += option or []
    rescaling = not no_rescaling
    wanted: tuple[Recipe, ...] | reading.ByDevice
    if device is None:
        wanted = reading.recipes(
            DEFAULT if to is None else to,
            precision,
            type or [],
            context,
            words,
            quality=quality,
            rescaling=rescaling,
            budget=budget,
        )
    elif type or words or budget:
        raise RequestError("--device chooses type, options and bits itself; leave them out")
    else:
        wanted = reading.by_device(
            device, to, precision, context, quality=quality, rescaling=rescaling
        )
    text = reading.calibration_text(calibration, calibration_size)
    return reading.Asked(wanted, text, ImatrixFiles(imatrix, imatrix_out), revision, adapter)


Request = Callable[[], "Asked"]
"""Gives what was asked for; called inside the command, where errors become exit codes."""


def takes_request(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of `request` in place of its first parameter but one, `asked`."""
    own = list(signature(command).parameters.values())
    shared = list(signature(request).parameters.values())
    before = [
        parameter
        for parameter in own
        if parameter.default is Parameter.empty and parameter.name != "asked"
    ]
    after = [parameter for parameter in own if parameter.default is not Parameter.empty]

    @wraps(command)
    def spliced(**words: Any) -> None:  # noqa: ANN401 (whatever typer parsed)
        given = {parameter.name: words.pop(parameter.name) for parameter in shared}
        command(asked=partial(request, **given), **words)

    parameters = [
        parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in [*before, *shared, *after]
    ]
    spliced.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined]
    spliced.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return spliced
