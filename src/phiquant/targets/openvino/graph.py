"""The decoder as an OpenVINO model, its weights still open.

Inputs `input_ids`, `attention_mask`, `position_ids`, `beam_idx`; output `logits`; each layer's
keys and values are states. Every stored array of a weight is a *parameter* of the model here, of
its true element type and shape: so OpenVINO checks the whole graph, and not a byte of weights is
in memory. `ir.py` turns these parameters into constants when the model is text.
"""

from dataclasses import dataclass

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.planning.plan import Plan, PlanRow
from phiquant.targets.openvino.attention import (
    GraphInputs,
    Shared,
    remember,
    rotate,
    shared,
    widen_heads,
)
from phiquant.targets.openvino.formats import FLOAT_GRIDS, INTEGER_GRIDS
from phiquant.targets.openvino.operators import Node, Operators
from phiquant.targets.openvino.parts import StoredConstant, stored_constants


@dataclass(frozen=True, slots=True)
class Graph:
    """An openvino.Model and the stored arrays that stand in it as parameters."""

    model: Node
    parts: tuple[StoredConstant, ...]


def build_graph(plan: Plan, architecture: Architecture) -> Graph:
    """The model for the tensors of `plan`."""
    return _Decoder(plan, architecture).graph()


class _Decoder:
    def __init__(self, plan: Plan, architecture: Architecture) -> None:
        self._build = Operators()
        self._architecture = architecture
        self._rows = {row.output: row for row in plan.rows}
        self._held = plan.by_source
        self._parameters: list[Node] = []
        self._parts: list[StoredConstant] = []
        self._weights: dict[str, Node] = {}

    def graph(self) -> Graph:
        inputs = self._inputs()
        by = shared(self._build, inputs, self._architecture)
        hidden = self._embed(inputs)
        for layer in range(self._architecture.layers):
            hidden = self._layer(hidden, layer, inputs, by)
        hidden = self._normed(hidden, "model.norm")
        head = "model.embed_tokens" if self._architecture.tied_head else "lm_head"
        logits = self._project(hidden, head)
        logits.output(0).tensor.set_names({"logits"})
        result = self._build.ops.result(logits)
        result.set_friendly_name("logits")
        given = [inputs.input_ids, inputs.attention_mask, inputs.position_ids, inputs.beam_idx]
        model = self._build.package.Model(
            [result], self._build.sinks, [*given, *self._parameters], "phiquant"
        )
        return Graph(model, tuple(self._parts))

    def _inputs(self) -> GraphInputs:
        made = {}
        for name, shape, kind in (
            ("input_ids", [-1, -1], "i64"),
            ("attention_mask", [-1, -1], "i64"),
            ("position_ids", [-1, -1], "i64"),
            ("beam_idx", [-1], "i32"),
        ):
            made[name] = self._build.parameter(shape, kind, name)
            made[name].output(0).tensor.set_names({name})
        return GraphInputs(**made)

    def _embed(self, inputs: GraphInputs) -> Node:
        build, table = self._build, self._weight("model.embed_tokens")
        ids = build.ops.convert(inputs.input_ids, "i32")
        return build.gather(table, ids, build.integer(0))

    def _layer(self, hidden: Node, layer: int, inputs: GraphInputs, by: Shared) -> Node:
        ops, at = self._build.ops, f"model.layers.{layer}"
        mixed = self._attention(self._normed(hidden, f"{at}.input_layernorm"), layer, inputs, by)
        hidden = ops.add(hidden, mixed)
        normed = self._normed(hidden, f"{at}.post_attention_layernorm")
        both = self._project(normed, f"{at}.mlp.gate_up_proj")
        inner = self._architecture.intermediate_size
        gate, up = self._split(both, [inner, inner])
        gated = ops.multiply(up, ops.swish(gate))
        return ops.add(hidden, self._project(gated, f"{at}.mlp.down_proj"))

    def _attention(self, normed: Node, layer: int, inputs: GraphInputs, by: Shared) -> Node:
        build, model = self._build, self._architecture
        ops, at = build.ops, f"model.layers.{layer}.self_attn"
        fused = self._project(normed, f"{at}.qkv_proj")
        counts = (model.heads, model.kv_heads, model.kv_heads)
        split = self._split(fused, [count * model.head_size for count in counts])
        queries, keys, values = (
            ops.transpose(
                ops.reshape(part, build.integers([0, 0, count, model.head_size]), True),
                build.integers([0, 2, 1, 3]),
            )
            for part, count in zip(split, counts, strict=True)
        )
        queries, keys = (rotate(build, part, by, model) for part in (queries, keys))
        keys = remember(build, keys, f"past_key_values.{layer}.key", by, inputs)
        values = remember(build, values, f"past_key_values.{layer}.value", by, inputs)
        mixed = ops.scaled_dot_product_attention(
            queries,
            widen_heads(build, keys, model),
            widen_heads(build, values, model),
            by.mask,
            build.floats(np.array(model.head_size**-0.5, np.float32)),
        )
        mixed = ops.transpose(mixed, build.integers([0, 2, 1, 3]))
        width = model.heads * model.head_size
        mixed = ops.reshape(mixed, build.integers([0, 0, width]), True)
        return self._project(mixed, f"{at}.o_proj")

    def _split(self, whole: Node, sizes: list[int]) -> list[Node]:
        build = self._build
        pieces = build.ops.variadic_split(whole, build.integer(2), build.integers(sizes))
        return list(pieces.outputs())

    def _normed(self, hidden: Node, name: str) -> Node:
        build, ops = self._build, self._build.ops
        gains = self._weight(name)
        mean = ops.reduce_mean(
            ops.power(hidden, build.floats(np.full((1, 1, 1), 2, np.float32))),
            build.integers([-1]),
            keep_dims=True,
        )
        epsilon = np.full((1, 1, 1), self._architecture.norm_epsilon, np.float32)
        root = ops.sqrt(ops.add(mean, build.floats(epsilon)))
        scaled = ops.divide(build.floats(np.ones((1, 1, 1), np.float32)), root)
        return ops.multiply(ops.multiply(hidden, scaled), gains)

    def _project(self, inputs: Node, name: str) -> Node:
        """The product with a weight, or with the parts of one, side by side as if it were fused."""
        ops = self._build.ops
        products = [
            ops.matmul(inputs, self._weight(row.output), False, True)
            for row in self._held[f"{name}.weight"]
        ]
        return products[0] if len(products) == 1 else ops.concat(products, -1)

    def _weight(self, name: str) -> Node:
        """The float32 weight: the stored arrays and, where they are not float32, what decodes them.

        One subgraph a weight, whoever asks: a tied head shares the embedding's.
        """
        if name not in self._weights:
            row = self._rows[name]
            parts = {part.part: self._stored(part) for part in stored_constants(row)}
            self._weights[name] = self._decoded(row, parts)
        return self._weights[name]

    def _stored(self, part: StoredConstant) -> Node:
        parameter = self._build.parameter(list(part.shape), part.element_type, part.name)
        self._parameters.append(parameter)
        self._parts.append(part)
        return parameter

    def _decoded(self, row: PlanRow, parts: dict[str, Node]) -> Node:
        ops, weight = self._build.ops, parts["weight"]
        if row.grid in FLOAT_GRIDS:
            return weight if row.grid == "f32" else ops.convert(weight, "f32")
        grid = INTEGER_GRIDS[row.grid]
        codes = ops.convert(weight, "f16")
        if "zero_point" in parts:
            codes = ops.subtract(codes, ops.convert(parts["zero_point"], "f16"))
        scaled = ops.multiply(codes, parts["scale"])
        if grid.group:
            scaled = ops.reshape(scaled, self._build.integers(list(row.shape)), False)
        return ops.convert(scaled, "f32")
