"""Norms and attention with ONNX Runtime's contrib operators.

Rotation happens inside GroupQueryAttention where it can, otherwise (see `rotary`) RotaryEmbedding
comes before it. Which of LongRoPE's caches holds is decided by the longest
sequence of the batch:

    CPU, mobile, DirectML   one cache; positions are moved by `original` where the long half holds
    CUDA, WebGPU            an `If` between the two halves, unless positions are fed anyway

`local_window_size` counts the tokens that are seen, the present one included.
"""

import onnx_ir as ir

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention, GatedFeedForward, Norm
from phiquant.targets.onnx.formats import ON_CPU, OnnxForm
from phiquant.targets.onnx.graph import CONTRIB, GraphBuilder, Pair
from phiquant.targets.onnx.rotary import cache_rows, needs_positions, short_rows


class FusedForm:
    """Adds fused norms and attention to a graph."""

    def __init__(
        self,
        builder: GraphBuilder,
        architecture: Architecture,
        form: OnnxForm,
        inputs: tuple[ir.Value, ir.Value, ir.Value | None],
    ) -> None:
        """`inputs` are the token ids, the attention mask, and the positions where they are fed."""
        self._builder = builder
        self._architecture = architecture
        self._form = form
        self._ids, mask, positions = inputs
        b = builder
        counts = b("ReduceSum", mask, b.integers(1), keepdims=0, name="/model/mask/ReduceSum")
        last = b("Sub", counts, b.integers(1), name="/model/mask/Sub")
        shape = b("Shape", mask, name="/model/mask/Shape")
        total = b("Gather", shape, b.integer(1), axis=0, name="/model/mask/Gather")
        self._last = b("Cast", last, to=int(ir.DataType.INT32), name="/model/mask/last")
        self._total = b("Cast", total, to=int(ir.DataType.INT32), name="/model/mask/total")
        self._caches = (b.weight("cos_cache.weight"), b.weight("sin_cache.weight"))
        self._positions = positions
        if short_rows(architecture):
            self._choose_cache(counts)

    def norm(self, x: ir.Value, gain: ir.Value, name: str, part: Norm) -> ir.Value:
        """RMSNorm of `x`."""
        normed = self._builder(
            "SimplifiedLayerNormalization",
            x,
            gain,
            axis=-1,
            epsilon=part.epsilon,
            stash_type=1,
            name=f"{name}/LayerNorm",
        )
        return self._tokens(normed, *part.gains.shape)

    def add_norm(self, x: ir.Value, y: ir.Value, gain: ir.Value, name: str, part: Norm) -> Pair:
        """RMSNorm of x + y, and x + y."""
        outputs = self._builder.several(
            4,
            "SkipSimplifiedLayerNormalization",
            x,
            y,
            gain,
            domain=CONTRIB,
            epsilon=part.epsilon,
            name=f"{name}/SkipLayerNorm",
        )
        for unused in outputs[1:3]:
            unused.name = ""
        hidden, total = (self._tokens(outputs[at], *part.gains.shape) for at in (0, 3))
        return hidden, total

    def gated(self, gate: ir.Value, up: ir.Value, name: str, part: GatedFeedForward) -> ir.Value:
        """silu(gate) * up; QuickGelu with alpha 1 is silu."""
        b = self._builder
        if self._form.provider in ON_CPU:
            active = b(
                "QuickGelu", gate, alpha=1.0, domain=CONTRIB, name=f"{name}/act_fn/QuickGelu"
            )
            active = self._tokens(active, part.width)
        else:
            sigmoid = b("Sigmoid", gate, name=f"{name}/act_fn/Sigmoid")
            active = b("Mul", gate, sigmoid, name=f"{name}/act_fn/Mul")
        return b("Mul", active, up, name=f"{name}/Mul")

    def attention(
        self, qkv: ir.Value, past: Pair, name: str, part: Attention
    ) -> tuple[ir.Value, Pair]:
        """GroupQueryAttention; the present shares the past's buffer where the runtime does."""
        own = self._architecture
        rotates_inside = not needs_positions(own, self._form.provider)
        if rotates_inside:
            inputs = [qkv, None, None, *past, self._last, self._total, *self._caches]
            if self._positions is not None:
                inputs.append(self._positions)
        else:
            inputs = [*self._rotated(qkv, name, part), *past, self._last, self._total]
        window = part.window
        output, key, value = self._builder.several(
            3,
            "GroupQueryAttention",
            *inputs,
            domain=CONTRIB,
            num_heads=part.heads,
            kv_num_heads=part.kv_heads,
            scale=part.head_size**-0.5,
            local_window_size=-1 if window is None or window >= own.max_positions else window,
            softcap=0.0,
            do_rotary=int(rotates_inside),
            rotary_interleaved=0,
            name=f"{name}/GroupQueryAttention",
        )
        return self._tokens(output, part.width), (key, value)

    def _tokens(self, value: ir.Value, width: int) -> ir.Value:
        """`value`, the output of a contrib operator: a vector of `width` a token."""
        return self._builder.known(value, "batch_size", "sequence_length", width)

    def _rotated(
        self, qkv: ir.Value, name: str, part: Attention
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        b, sizes = self._builder, [piece.rows for piece in part.qkv.parts]
        split = b.several(3, "Split", qkv, b.integers(*sizes), axis=-1, name=f"{name}/qkv/Split")
        partial = part.rope.dimensions != part.head_size
        turned = [
            self._tokens(
                b(
                    "RotaryEmbedding",
                    piece,
                    self._positions,
                    *self._caches,
                    domain=CONTRIB,
                    interleaved=0,
                    num_heads=heads if partial else 0,
                    rotary_embedding_dim=part.rope.dimensions if partial else 0,
                    name=f"{name}/{which}_rotary/RotaryEmbedding",
                ),
                heads * part.head_size,
            )
            for piece, heads, which in zip(split, (part.heads, part.kv_heads), "qk", strict=False)
        ]
        return turned[0], turned[1], split[2]

    def _choose_cache(self, counts: ir.Value) -> None:
        """`counts` are the tokens of each sequence, present ones included."""
        b, original = self._builder, short_rows(self._architecture)
        longest = b("ReduceMax", counts, keepdims=0, name="/model/longrope/ReduceMax")
        is_long = b("Greater", longest, b.integer(original), name="/model/longrope/Greater")
        if self._form.provider in ON_CPU or self._positions:
            positions = self._positions or self._own_positions(counts)
            moved = b("Cast", is_long, to=int(ir.DataType.INT64), name="/model/longrope/Cast")
            moved = b("Mul", moved, b.integer(original), name="/model/longrope/Mul")
            self._positions = b("Add", positions, moved, name="/model/longrope/Add")
        else:
            self._caches = self._either_cache(is_long, original)

    def _own_positions(self, counts: ir.Value) -> ir.Value:
        """Positions (batch, tokens) of the present tokens, as the operator numbers them."""
        b = self._builder
        shape = b("Shape", self._ids, name="/model/positions/Shape")
        length = b("Gather", shape, b.integer(1), axis=0, name="/model/positions/Gather")
        first = b("Sub", counts, length, name="/model/positions/Sub")
        first = b("Max", first, b.integer(0), name="/model/positions/Max")
        first = b("Unsqueeze", first, b.integers(1), name="/model/positions/Unsqueeze")
        steps = b("Range", b.integer(0), length, b.integer(1), name="/model/positions/Range")
        steps = b.known(steps, "sequence_length", dtype=ir.DataType.INT64)
        return b("Add", first, steps, name="/model/positions/Add")

    def _either_cache(self, is_long: ir.Value, original: int) -> Pair:
        ends = (original, cache_rows(self._architecture))
        outputs = [ir.Value(name=name) for name in ("/model/longrope/cos", "/model/longrope/sin")]
        node = ir.node(
            "If",
            [is_long],
            attributes={
                "then_branch": self._half("long", original, ends[1]),
                "else_branch": self._half("short", 0, original),
            },
            outputs=outputs,
            name="/model/longrope/If",
        )
        self._builder.add(node)
        width = self._architecture.rope.dimensions // 2
        cos, sin = (self._builder.known(cache, "cache_length", width) for cache in outputs)
        return cos, sin

    def _half(self, side: str, first: int, last: int) -> ir.Graph:
        b = self._builder
        nodes = []
        for cache, name in zip(self._caches, ("cos", "sin"), strict=True):
            bounds = [cache, b.integers(first), b.integers(last), b.integers(0)]
            node = ir.node("Slice", bounds, name=f"/model/longrope/{side}/{name}")
            node.outputs[0].name = f"{side}_{name}"
            b.known(node.outputs[0], last - first, self._architecture.rope.dimensions // 2)
            nodes.append(node)
        return ir.Graph([], [n.outputs[0] for n in nodes], nodes=nodes, name=f"{side}_caches")
