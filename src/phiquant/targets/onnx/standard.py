"""Norms and attention with standard ONNX operators only (opset 21).

RMSNorm is x / sqrt(mean(x²) + ε) times the gains. Attention turns queries and keys by rows of the
rotary caches, appends keys and values to the past, and masks by position: the token at position i
sees the token at position j if j <= i, j is no padding and, with a sliding window, i - j is below
it. Positions count the tokens that are no padding: onnxruntime-genai pads a batch on the right, so
the tokens that it generates lie behind the padding. The heads that share keys are an axis of their
own, so keys and values are never repeated.

The attention mask covers all tokens, the present ones last. It may cover more than the past and
the present hold: when tokens are appended after a generation, onnxruntime-genai counts the token
that was generated last, and has not run it. GroupQueryAttention finds zeros at its place in the
shared cache; here the place is filled with zeros, so that both forms compute the same.
"""

import numpy as np
import onnx_ir as ir

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention, GatedFeedForward, Norm
from phiquant.targets.onnx.graph import GraphBuilder, Pair
from phiquant.targets.onnx.rotary import short_rows


class StandardForm:
    """Adds norms and attention to a graph, without contrib operators."""

    def __init__(
        self,
        builder: GraphBuilder,
        architecture: Architecture,
        inputs: tuple[ir.Value, ir.Value],
        past: ir.Value,
    ) -> None:
        """`inputs` are the token ids and the attention mask; `past` is any layer's keys."""
        self._builder = b = builder
        self._architecture = architecture
        ids, mask = inputs
        total, length = self._extent(mask, 1), self._extent(ids, 1)
        first = b("Sub", total, length, name="/model/positions/first")
        positions = b("CumSum", mask, b.integer(1), name="/model/positions/CumSum")
        positions = b("Sub", positions, b.integer(1), name="/model/positions/Sub")
        positions = b("Max", positions, b.integer(0), name="/model/positions/Max")
        present = b("Slice", positions, first, total, b.integers(1), name="/model/positions/Slice")
        present = b.known(present, "batch_size", "sequence_length", dtype=ir.DataType.INT64)
        self._bias = self._mask_bias(mask, positions, present)
        self._rotation = self._rotations(self._cache_rows(mask, present))
        self._hole = self._zeros(ids, b("Sub", first, self._extent(past, 2)))

    def norm(self, x: ir.Value, gain: ir.Value, name: str, part: Norm) -> ir.Value:
        """RMSNorm of `x`."""
        b = self._builder
        square = b("Mul", x, x, name=f"{name}/square")
        mean = b("ReduceMean", square, b.integers(-1), keepdims=1, name=f"{name}/ReduceMean")
        mean = b("Add", mean, b.real(part.epsilon), name=f"{name}/Add")
        root = b("Sqrt", mean, name=f"{name}/Sqrt")
        return b("Mul", b("Div", x, root, name=f"{name}/Div"), gain, name=f"{name}/Mul")

    def add_norm(self, x: ir.Value, y: ir.Value, gain: ir.Value, name: str, part: Norm) -> Pair:
        """RMSNorm of x + y, and x + y."""
        total = self._builder("Add", x, y, name=f"{name}/residual")
        return self.norm(total, gain, name, part), total

    def gated(self, gate: ir.Value, up: ir.Value, name: str, part: GatedFeedForward) -> ir.Value:
        """silu(gate) * up."""
        b = self._builder
        active = b("Mul", gate, b("Sigmoid", gate, name=f"{name}/Sigmoid"), name=f"{name}/silu")
        return b("Mul", active, up, name=f"{name}/Mul")

    def attention(
        self, qkv: ir.Value, past: Pair, name: str, part: Attention
    ) -> tuple[ir.Value, Pair]:
        """Attention of the fused projections (batch, tokens, q + k + v) with the past."""
        b, size, group = self._builder, part.head_size, part.heads // part.kv_heads
        rows = [piece.rows for piece in part.qkv.parts]
        pieces = b.several(3, "Split", qkv, b.integers(*rows), axis=-1, name=f"{name}/Split")
        queries, keys, values = (
            self._heads(piece, heads, size, f"{name}/{which}")
            for piece, heads, which in zip(
                pieces, (part.heads, part.kv_heads, part.kv_heads), "qkv", strict=True
            )
        )
        queries = self._rotate(queries, f"{name}/q_rotary", part)
        keys = self._rotate(keys, f"{name}/k_rotary", part)
        keys = b("Concat", past[0], self._hole, keys, axis=2, name=f"{name}/keys")
        values = b("Concat", past[1], self._hole, values, axis=2, name=f"{name}/values")
        grouped = (part.kv_heads, group)
        queries = b("Reshape", queries, b.integers(0, *grouped, -1, size), name=f"{name}/grouped")
        queries = b.known(queries, "batch_size", *grouped, "sequence_length", size)
        across = b("Transpose", keys, perm=[0, 1, 3, 2], name=f"{name}/across")
        across = b("Unsqueeze", across, b.integers(2), name=f"{name}/shared_keys")
        scores = b("MatMul", queries, across, name=f"{name}/scores")
        scores = b("Mul", scores, b.real(size**-0.5), name=f"{name}/scaled")
        scores = b("Add", scores, self._bias, name=f"{name}/masked")
        weights = b("Softmax", scores, axis=-1, name=f"{name}/Softmax")
        shared = b("Unsqueeze", values, b.integers(2), name=f"{name}/shared_values")
        mixed = b("MatMul", weights, shared, name=f"{name}/mixed")
        heads = b.integers(0, part.heads, -1, size)
        mixed = b("Reshape", mixed, heads, name=f"{name}/heads")
        mixed = b.known(mixed, "batch_size", part.heads, "sequence_length", size)
        mixed = b("Transpose", mixed, perm=[0, 2, 1, 3], name=f"{name}/tokens")
        flat = b.integers(0, 0, part.width)
        return b("Reshape", mixed, flat, name=f"{name}/flat"), (keys, values)

    def _extent(self, value: ir.Value, axis: int) -> ir.Value:
        """One extent of `value`, as a vector of one."""
        return self._builder("Shape", value, start=axis, end=axis + 1)

    def _zeros(self, ids: ir.Value, count: ir.Value) -> ir.Value:
        """Keys or values that are zero, for `count` tokens: (batch, kv_heads, count, head_size)."""
        b, own = self._builder, self._architecture
        sizes = (self._extent(ids, 0), b.integers(own.kv_heads), count, b.integers(own.head_size))
        shape = b("Concat", *sizes, axis=0, name="/model/hole/Concat")
        zeros = b("Expand", b.real(0.0), shape, name="/model/hole/Expand")
        return b.known(zeros, "batch_size", own.kv_heads, "hole_sequence_length", own.head_size)

    def _heads(self, piece: ir.Value, heads: int, size: int, name: str) -> ir.Value:
        b = self._builder
        split = b.integers(0, 0, heads, size)
        return b("Transpose", b("Reshape", piece, split), perm=[0, 2, 1, 3], name=name)

    def _mask_bias(self, mask: ir.Value, positions: ir.Value, present: ir.Value) -> ir.Value:
        """0 where a token is seen and the least float where not: (batch, 1, 1, tokens, total).

        `positions` are those of all tokens, `present` those of the present ones.
        """
        b, own = self._builder, self._architecture
        queries = b("Unsqueeze", present, b.integers(1, 2, 4), name="/model/mask/queries")
        keys = b("Unsqueeze", positions, b.integers(1, 2, 3), name="/model/mask/keys")
        seen = b("LessOrEqual", keys, queries, name="/model/mask/causal")
        window = own.sliding_window
        if window is not None and window < own.max_positions:
            age = b("Sub", queries, keys, name="/model/mask/age")
            seen = b("And", seen, b("Less", age, b.integer(window)), name="/model/mask/window")
        real = b("Cast", mask, to=int(ir.DataType.BOOL), name="/model/mask/real")
        real = b("Unsqueeze", real, b.integers(1, 2, 3), name="/model/mask/batch")
        seen = b("And", seen, real, name="/model/mask/seen")
        hidden = b.real(float(np.finfo(b.activations.numpy()).min))
        return b("Where", seen, b.real(0.0), hidden, name="/model/mask/Where")

    def _cache_rows(self, mask: ir.Value, positions: ir.Value) -> ir.Value:
        """Rows of the caches for each position; see `rotary`."""
        original = short_rows(self._architecture)
        if not original:
            return positions
        b = self._builder
        counts = b("ReduceSum", mask, b.integers(1), keepdims=0, name="/model/longrope/counts")
        longest = b("ReduceMax", counts, keepdims=0, name="/model/longrope/longest")
        is_long = b("Greater", longest, b.integer(original), name="/model/longrope/Greater")
        moved = b("Cast", is_long, to=int(ir.DataType.INT64), name="/model/longrope/Cast")
        moved = b("Mul", moved, b.integer(original), name="/model/longrope/Mul")
        return b("Add", positions, moved, name="/model/longrope/Add")

    def _rotations(self, rows: ir.Value) -> Pair:
        """Cos and sin (batch, 1, tokens, dimensions / 2)."""
        b = self._builder
        cos, sin = (
            b("Unsqueeze", b("Gather", b.weight(f"{name}_cache.weight"), rows, axis=0),
              b.integers(1), name=f"/model/rotary/{name}")
            for name in ("cos", "sin")
        )  # fmt: skip
        return cos, sin

    def _rotate(self, heads: ir.Value, name: str, part: Attention) -> ir.Value:
        """Turn heads (batch, heads, tokens, head_size); see `network.rope.rotate`."""
        b, half = self._builder, part.rope.dimensions // 2
        rest = part.head_size - 2 * half
        sizes = (half, half, rest) if rest else (half, half)
        left, right, *unturned = b.several(
            len(sizes), "Split", heads, b.integers(*sizes), axis=-1, name=f"{name}/Split"
        )
        cos, sin = self._rotation
        turned = [
            b("Sub", b("Mul", left, cos), b("Mul", right, sin), name=f"{name}/left"),
            b("Add", b("Mul", right, cos), b("Mul", left, sin), name=f"{name}/right"),
        ]
        return b("Concat", *turned, *unturned, axis=-1, name=f"{name}/Concat")
