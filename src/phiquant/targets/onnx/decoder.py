"""The decoder graph of Phi-3.

    inputs   input_ids (batch, tokens), attention_mask (batch, total), position_ids (where
             rotation is an operator of its own),
             past_key_values.N.key/value (batch, kv_heads, past, head_size)
    outputs  logits (batch, tokens, vocabulary), present.N.key/value (batch, kv_heads, total, ...)

Node names follow the usual ones (`/model/layers.0/attn/qkv_proj/MatMulNBits`), so that one reader
serves this writer and others. Norms and attention come in two forms: `fused` for ONNX Runtime's
contrib operators, `standard` for ONNX's own alone.
Source of the network: Phi3ForCausalLM of transformers; of the operators: docs/ContribOperators.md
of microsoft/onnxruntime.
"""

from typing import Protocol

import onnx_ir as ir

from phiquant.phi.architecture import Architecture
from phiquant.planning.plan import Plan
from phiquant.targets.onnx.formats import OnnxForm
from phiquant.targets.onnx.fused import FusedForm
from phiquant.targets.onnx.graph import GraphBuilder, Pair
from phiquant.targets.onnx.matrices import Matrices
from phiquant.targets.onnx.rotary import needs_positions
from phiquant.targets.onnx.standard import StandardForm


class DecoderForm(Protocol):
    """Norms and attention in one form."""

    def norm(self, x: ir.Value, gain: ir.Value, name: str) -> ir.Value:
        """RMSNorm of `x`."""

    def add_norm(self, x: ir.Value, y: ir.Value, gain: ir.Value, name: str) -> Pair:
        """RMSNorm of x + y, and x + y."""

    def attention(self, qkv: ir.Value, past: Pair, name: str) -> tuple[ir.Value, Pair]:
        """Attention of fused projections with the past; its output, and the present."""

    def gated(self, gate: ir.Value, up: ir.Value, name: str) -> ir.Value:
        """silu(gate) * up."""


def build(builder: GraphBuilder, plan: Plan, architecture: Architecture, form: OnnxForm) -> None:
    """Add the whole decoder to `builder`."""
    integer = ir.DataType.INT64
    ids = builder.input("input_ids", integer, ["batch_size", "sequence_length"])
    mask = builder.input("attention_mask", integer, ["batch_size", "total_sequence_length"])
    positions = None
    if form.fused and needs_positions(architecture, form.provider):
        positions = builder.input("position_ids", integer, ["batch_size", "sequence_length"])
    pasts = [_past(builder, architecture, layer) for layer in range(architecture.layers)]
    blocks: DecoderForm
    if form.fused:
        blocks = FusedForm(builder, architecture, form, (ids, mask, positions))
    else:
        blocks = StandardForm(builder, architecture, (ids, mask), pasts[0][0])
    matrices = Matrices(builder, plan, architecture, form)
    hidden = _layers(builder, architecture, blocks, matrices, (ids, pasts))
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
    architecture: Architecture,
    blocks: DecoderForm,
    matrices: Matrices,
    inputs: tuple[ir.Value, list[Pair]],
) -> ir.Value:
    """The final norm's output."""
    ids, pasts = inputs
    residual = matrices.embed(ids)
    update: ir.Value | None = None
    for layer, past in enumerate(pasts):
        at, node = f"model.layers.{layer}", f"/model/layers.{layer}"
        gain = b.weight(f"{at}.input_layernorm.weight")
        if update is None:
            normed = blocks.norm(residual, gain, f"{node}/input_layernorm")
        else:
            normed, residual = blocks.add_norm(residual, update, gain, f"{node}/input_layernorm")
        qkv = matrices.linear(normed, f"{at}.self_attn.qkv_proj", f"{node}/attn/qkv_proj")
        attended, present = blocks.attention(qkv, past, f"{node}/attn")
        _present(b, architecture, layer, present)
        update = matrices.linear(attended, f"{at}.self_attn.o_proj", f"{node}/attn/o_proj")
        gain = b.weight(f"{at}.post_attention_layernorm.weight")
        normed, residual = blocks.add_norm(
            residual, update, gain, f"{node}/post_attention_layernorm"
        )
        both = matrices.linear(normed, f"{at}.mlp.gate_up_proj", f"{node}/mlp/gate_up_proj")
        gate, up = b.several(2, "Split", both, axis=-1, num_outputs=2, name=f"{node}/mlp/Split")
        inner = blocks.gated(gate, up, f"{node}/mlp")
        update = matrices.linear(inner, f"{at}.mlp.down_proj", f"{node}/mlp/down_proj")
    assert update is not None
    return blocks.add_norm(residual, update, b.weight("model.norm.weight"), "/model/norm")[0]


def _past(b: GraphBuilder, architecture: Architecture, layer: int) -> Pair:
    shape: list[int | str] = [
        "batch_size",
        architecture.kv_heads,
        "past_sequence_length",
        architecture.head_size,
    ]
    name = f"past_key_values.{layer}"
    return (
        b.input(f"{name}.key", b.activations, shape),
        b.input(f"{name}.value", b.activations, shape),
    )


def _present(b: GraphBuilder, architecture: Architecture, layer: int, present: Pair) -> None:
    shape: list[int | str] = [
        "batch_size",
        architecture.kv_heads,
        "total_sequence_length",
        architecture.head_size,
    ]
    for value, kind in zip(present, ("key", "value"), strict=True):
        b.output(value, f"present.{layer}.{kind}", b.activations, shape)
