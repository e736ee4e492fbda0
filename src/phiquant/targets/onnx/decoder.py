"""The decoder graph of a network, part by part.

    inputs   input_ids (batch, tokens), attention_mask (batch, total), position_ids (where
             rotation is an operator of its own),
             past_key_values.N.key/value (batch, kv_heads, past, head_size)
    outputs  logits (batch, tokens, vocabulary), present.N.key/value (batch, kv_heads, total, ...)

Node names follow the usual ones (`/model/layers.0/attn/qkv_proj/MatMulNBits`), so that one reader
serves this writer and others. Norms and attention come in two forms: `fused` for ONNX Runtime's
contrib operators, `standard` for ONNX's own alone.
Source of the operators: docs/ContribOperators.md of microsoft/onnxruntime.
"""

from typing import Protocol

import onnx_ir as ir

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention, GatedFeedForward, Network, Norm, Weight
from phiquant.planning.plan import Plan
from phiquant.targets.onnx.formats import OnnxForm
from phiquant.targets.onnx.fused import FusedForm
from phiquant.targets.onnx.graph import GraphBuilder, Pair
from phiquant.targets.onnx.matrices import Matrices
from phiquant.targets.onnx.rotary import needs_positions
from phiquant.targets.onnx.standard import StandardForm


class DecoderForm(Protocol):
    """The parts in one form; nodes are called by `name`, or as if they were inside of it."""

    def norm(self, x: ir.Value, gain: ir.Value, name: str, part: Norm) -> ir.Value:
        """RMSNorm of `x`."""

    def add_norm(self, x: ir.Value, y: ir.Value, gain: ir.Value, name: str, part: Norm) -> Pair:
        """RMSNorm of x + y, and x + y."""

    def attention(
        self, qkv: ir.Value, past: Pair, name: str, part: Attention
    ) -> tuple[ir.Value, Pair]:
        """Attention of fused projections with the past; its output, and the present."""

    def gated(self, gate: ir.Value, up: ir.Value, name: str, part: GatedFeedForward) -> ir.Value:
        """silu(gate) * up."""


def build(builder: GraphBuilder, plan: Plan, architecture: Architecture, form: OnnxForm) -> None:
    """Add the whole decoder to `builder`."""
    integer = ir.DataType.INT64
    ids = builder.input("input_ids", integer, ["batch_size", "sequence_length"])
    mask = builder.input("attention_mask", integer, ["batch_size", "total_sequence_length"])
    positions = None
    if form.fused and needs_positions(architecture, form.provider):
        positions = builder.input("position_ids", integer, ["batch_size", "sequence_length"])
    network = architecture.network
    pasts = [_past(builder, block.attention, layer) for layer, block in enumerate(network.blocks)]
    parts: DecoderForm
    if form.fused:
        parts = FusedForm(builder, architecture, form, (ids, mask, positions))
    else:
        parts = StandardForm(builder, architecture, (ids, mask), pasts[0][0])
    matrices = Matrices(builder, plan, network, form)
    hidden = _layers(builder, network, parts, matrices, (ids, pasts))
    length: int | str = "sequence_length"
    if form.last_logits:
        hidden = builder("Gather", hidden, builder.integers(-1), axis=1, name="/model/last/Gather")
        length = 1
    logits = matrices.head(hidden)
    builder.output(
        logits, "logits", builder.activations, ["batch_size", length, architecture.vocabulary_size]
    )
    builder.order_outputs()


def _layers(
    b: GraphBuilder,
    network: Network,
    form: DecoderForm,
    matrices: Matrices,
    inputs: tuple[ir.Value, list[Pair]],
) -> ir.Value:
    """The final norm's output."""
    ids, pasts = inputs
    residual = matrices.embed(ids)
    update: ir.Value | None = None  # to be added to it by the next norm

    def normed(norm: Norm) -> ir.Value:
        nonlocal residual
        gain, name = b.weight(norm.gains.name), node_name(norm.gains)
        if update is None:
            return form.norm(residual, gain, name, norm)
        result, residual = form.add_norm(residual, update, gain, name, norm)
        return result

    for number, block in enumerate(network.blocks):
        left = residual
        for step in block.steps:
            name = node_name(step.linear.weight)
            beside = name.rpartition("/")[0]
            taken = left if step.norm is None else normed(step.norm)
            outputs = matrices.linear(taken, step.linear, name)
            if step.then is None:
                update = outputs
            elif isinstance(step.then, Attention):
                left, present = form.attention(outputs, pasts[number], beside, step.then)
                _present(b, step.then, number, present)
            else:
                gate, up = b.several(
                    2, "Split", outputs, axis=-1, num_outputs=2, name=f"{beside}/Split"
                )
                left = form.gated(gate, up, beside, step.then)
    return normed(network.norm)


def node_name(weight: Weight) -> str:
    """What the node of a weight is usually called: `/model/layers.0/attn/qkv_proj`."""
    stem = weight.name.removesuffix(".weight").replace("self_attn", "attn")
    if weight.layer is None:
        return "/" + stem.replace(".", "/")
    place = f"layers.{weight.layer}"
    before, _, inside = stem.partition(f"{place}.")
    return f"/{before.replace('.', '/')}{place}/{inside.replace('.', '/')}"


def _past(b: GraphBuilder, part: Attention, layer: int) -> Pair:
    shape: list[int | str] = ["batch_size", part.kv_heads, "past_sequence_length", part.head_size]
    name = f"past_key_values.{layer}"
    return (
        b.input(f"{name}.key", b.activations, shape),
        b.input(f"{name}.value", b.activations, shape),
    )


def _present(b: GraphBuilder, part: Attention, layer: int, present: Pair) -> None:
    shape: list[int | str] = ["batch_size", part.kv_heads, "total_sequence_length", part.head_size]
    for value, kind in zip(present, ("key", "value"), strict=True):
        b.output(value, f"present.{layer}.{kind}", b.activations, shape)
