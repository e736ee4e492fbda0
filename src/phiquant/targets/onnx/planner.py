"""The plan of an ONNX artifact: which grid every tensor gets, and why.

Every linear layer, the embedding and the head are quantized; a tied head shares the embedding's
matrix. Norm gains and the rotary caches have the type of the activations.
"""

from collections.abc import Iterator

from phiquant.errors import RequestError
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role, Weight
from phiquant.phi.survey import Survey
from phiquant.planning.footprint import cached_values
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.floats import FLOAT_TYPES
from phiquant.quantization.grid import fitting_group, stored_bytes
from phiquant.targets.form import check_context
from phiquant.targets.onnx.formats import (
    FLOATS,
    GRIDS,
    BlockFormat,
    OnnxForm,
)
from phiquant.targets.onnx.grids import BLOCKS
from phiquant.targets.onnx.rotary import cache_rows

GPU_NOTE = (
    "made for {provider}: FP16 activations; only that execution provider runs every operator at "
    "this precision"
)
CACHE_NOTE = (
    "sequences may reach {tokens:,} tokens, the prompt included, for which onnxruntime-genai "
    "allocates {megabytes:,.0f} MB of keys and values at once; `context` when it is made, or the "
    "search option max_length when it is run, sets another number, up to {longest:,}"
)


def plan(architecture: Architecture, survey: Survey, form: OnnxForm) -> Plan:
    """Every tensor of the artifact, in network order, the rotary caches last.

    Raises RequestError for a context beyond the model's, and where a weight does not fit FP16.
    """
    check_context(form.context, architecture.max_positions)
    rows = [_row(weight, form, architecture) for weight in architecture.weights()]
    _require_fp16_range(rows, survey)
    reason = f"cos and sin of the rotary embedding, {form.activations} as the activations"
    for name in ("cos_cache", "sin_cache"):
        shape = (cache_rows(architecture), architecture.rope.dimensions // 2)
        nbytes = GRIDS[form.activations].layout(shape)["weight"].nbytes
        rows.append(PlanRow(None, name, None, None, shape, form.activations, nbytes, reason))
    return Plan("onnx", form.type, tuple(rows), tuple(_notes(form, architecture)))


def _notes(form: OnnxForm, architecture: Architecture) -> Iterator[str]:
    if form.activations == "F16":
        yield GPU_NOTE.format(provider=form.provider)
    if form.last_logits:
        yield "the graph gives the logits of the last position only"
    if form.fused:
        longest = architecture.max_positions
        tokens = form.max_length(longest)
        width = FLOAT_TYPES[form.activations].stored.itemsize
        nbytes = cached_values(architecture) * tokens * width
        yield CACHE_NOTE.format(tokens=tokens, megabytes=nbytes / 1e6, longest=longest)


def _row(weight: Weight, form: OnnxForm, architecture: Architecture) -> PlanRow:
    grid, reason = _choose(weight, form, architecture)
    nbytes = stored_bytes(GRIDS[grid], weight.shape)
    output = weight.name.removesuffix(".weight")
    return PlanRow(
        weight.name, output, weight.role, weight.layer, weight.shape, grid, nbytes, reason
    )


def _choose(weight: Weight, form: OnnxForm, architecture: Architecture) -> tuple[str, str]:
    """The grid and the reason for it."""
    if weight.role.is_norm:
        return form.activations, f"norm gains have the activations' type, {form.activations}"
    blocks = form.blocks
    if blocks is None:
        return FLOATS[form.type], f"{form.type}: every matrix is stored as {FLOATS[form.type]}"
    columns = weight.shape[1]
    block = fitting_group(columns, blocks.block, BLOCKS)
    if block is None:
        return form.activations, (
            f"rows of {columns} weights do not divide into blocks of 16; {form.activations} as "
            "the activations"
        )
    bits, why = _bits(weight, form, blocks, architecture)
    if block != blocks.block:
        why = f"rows of {columns} weights do not divide into blocks of {blocks.block}; {why}"
    return BlockFormat(bits, block, blocks.symmetric).grid_name(form.activations), why


def _bits(
    weight: Weight, form: OnnxForm, blocks: BlockFormat, architecture: Architecture
) -> tuple[int, str]:
    """Bits of one matrix and the reason for them."""
    everything = f"{form.type}: embedding, linear layers and head are quantized"
    if weight.role is not Role.EMBEDDING or blocks.bits == 8:
        if form.qdq and blocks.bits == 4 and weight.shape[0] % 2:
            return 8, "an odd number of rows cannot be stored transposed in 4 bits; 8 bits"
        return blocks.bits, everything
    if form.qdq:
        return 8, "standard operators gather bytes, not nibbles; the embedding has 8 bits"
    if form.embedding_bits == 8:
        shared = " and, being tied, the head" if architecture.tied_head else ""
        return 8, f"the embedding{shared} has 8 bits, as asked for"
    return 4, everything


def _require_fp16_range(rows: list[PlanRow], survey: Survey) -> None:
    beyond = [
        row.source
        for row in rows
        if row.grid == "F16" and row.source is not None and not survey.fits_fp16(row.source)
    ]
    if beyond:
        raise RequestError(
            f"FP16 ends at 65504, and {beyond[0]} reaches {survey.largest[beyond[0]]:g}"
            f"{f' ({len(beyond) - 1} more tensors do not fit either)' if beyond[1:] else ''}; "
            "choose `precision=fp32` and `provider=cpu`"
        )
