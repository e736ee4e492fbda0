"""What can be asked of an ONNX artifact: its types, its execution provider, its form.

A quantized type is bits, block and symmetry ("int4-b32", "int8-b64-sym"). The provider decides
the type of activations, hence of scales and norm gains: FP32 on CPUs, FP16 on GPUs, where the
fused attention takes nothing else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from phiquant.errors import RequestError
from phiquant.planning.precision import Precision
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import Grid
from phiquant.targets.form import Request
from phiquant.targets.onnx.grids import BITS, BLOCKS, FLOAT_GRIDS, BlockwiseGrid

FLOATS: Mapping[str, str] = {"fp16": "F16", "fp32": "F32"}
PROVIDERS = ("cpu", "mobile", "cuda", "dml", "webgpu")
ON_CPU = ("cpu", "mobile")
DEFAULT_CONTEXT = 4096
"""Tokens that an artifact is set to serve where the request names no number: its `max_length`."""

DEFAULTS: Mapping[Precision, str] = {
    "int4": "int4-b32",
    "int8": "int8-b32",
    "fp16": "fp16",
    "fp32": "fp32",
}

CHOICE = (
    f"int4 or int8 with a block of {', '.join(map(str, BLOCKS))} (int4-b32, int4-b32-sym), or one "
    f"of {', '.join(FLOATS)}"
)
"""The types in words."""

TYPES: Mapping[str, str] = {
    f"int{bits}-b{block}{'-sym' if symmetric else ''}": (
        f"{bits}-bit codes, a scale{'' if symmetric else ' and a zero point'} for every "
        f"{block} weights"
    )
    for bits in BITS
    for block in BLOCKS
    for symmetric in (False, True)
} | {
    "fp16": "half precision, 16 bits: 11 bits of precision, nothing beyond 65504",
    "fp32": "single precision, 32 bits",
}

OPTIONS: Mapping[str, str] = {
    "provider": "where it is to run: cpu, mobile, cuda, dml or webgpu (default cpu)",
    "accuracy_level": "how MatMulNBits computes, 0 to 4; 4 is int8 (default 4 on CPUs, else 0)",
    "qdq": "true: standard ONNX operators only, weights through DequantizeLinear (default false)",
    "embedding": "bits of the embedding of a 4-bit artifact: 4 or 8 (default 4)",
    "last_logits": "true: logits of the last position only, for faster prompts (default false)",
}

GRIDS: Mapping[str, Grid] = {
    **FLOAT_GRIDS,
    **{
        f"{grid.name} {parameters}": grid
        for parameters in FLOATS.values()
        for bits in BITS
        for block in BLOCKS
        for symmetric in (False, True)
        for grid in (BlockwiseGrid(bits, block, symmetric, FLOAT_TYPES[parameters]),)
    },
}
"""Every grid that a plan of this target may name."""


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """Bits, block and symmetry of a quantized type."""

    bits: int
    block: int
    symmetric: bool

    def grid_name(self, parameters: str) -> str:
        """The name of its grid with scales of the element type `parameters`."""
        return f"int{self.bits}-b{self.block}{'-sym' if self.symmetric else ''} {parameters}"


@dataclass(frozen=True, slots=True)
class OnnxForm:
    """Everything that decides the graph, besides the model."""

    type: str
    provider: str
    accuracy_level: int
    qdq: bool
    embedding_bits: int
    last_logits: bool
    context: int | None
    divides = False

    @property
    def given(self) -> Mapping[str, str]:
        """The options that are not at their defaults."""
        words = {
            "provider": (self.provider, PROVIDERS[0]),
            "accuracy_level": (str(self.accuracy_level), _usual_level(self.provider)),
            "qdq": (str(self.qdq).lower(), "false"),
            "embedding": (str(self.embedding_bits), "4"),
            "last_logits": (str(self.last_logits).lower(), "false"),
        }
        return {name: word for name, (word, usual) in words.items() if word != usual}

    def max_length(self, longest: int) -> int:
        """The tokens of a sequence, prompt included, unless a caller of the runtime says otherwise.

        `longest` is the number of the model's positions.
        """
        return min(DEFAULT_CONTEXT, longest) if self.context is None else self.context

    @property
    def blocks(self) -> BlockFormat | None:
        """The blocks of a quantized type, None for a float type."""
        return blocks_of(self.type)

    @property
    def activations(self) -> str:
        """The element type of activations, norm gains and scales."""
        return "F32" if self.provider in ON_CPU or self.type == "fp32" else "F16"

    @property
    def fused(self) -> bool:
        """Whether the graph may hold contrib operators."""
        return not self.qdq


def blocks_of(name: str) -> BlockFormat | None:
    """Bits, block and symmetry of a quantized type's name, None for a float type."""
    match = re.fullmatch(r"int(\d)-b(\d+)(-sym)?", name)
    return BlockFormat(int(match[1]), int(match[2]), match[3] is not None) if match else None


def read_form(request: Request) -> OnnxForm:
    """The form that is asked for; RequestError for what ONNX Runtime does not have."""
    provider = request.choice("provider", PROVIDERS, PROVIDERS[0])
    form = OnnxForm(
        type=request.type_among(TYPES, DEFAULTS, "ONNX", CHOICE),
        provider=provider,
        accuracy_level=int(
            request.choice("accuracy_level", ("0", "1", "2", "3", "4"), _usual_level(provider))
        ),
        qdq=request.flag("qdq"),
        embedding_bits=int(request.choice("embedding", ("4", "8"), "4")),
        last_logits=request.flag("last_logits"),
        context=request.context,
    )
    if form.type == "fp32" and provider in ("cuda", "dml") and form.fused:
        raise RequestError(
            f"fused attention on {provider} computes in FP16 only; choose `precision=fp16`, or "
            "`provider=cpu` for FP32"
        )
    return form


def _usual_level(provider: str) -> str:
    return "4" if provider in ON_CPU else "0"
