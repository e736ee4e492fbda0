"""The decoder as an OpenVINO model, its weights still open.

Inputs `input_ids`, `attention_mask`, `position_ids`, `beam_idx`; output `logits`; each layer's
keys and values are states. Every stored array of a weight is a *parameter* of the model here, of
its true element type and shape: so OpenVINO checks the whole graph, and not a byte of weights is
in memory. `ir.py` turns these parameters into constants when the model is text.
"""

from dataclasses import dataclass

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention, Block, Linear, Norm, Weight
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


@dataclass(frozen=True, slots=True)
class _Cache:
    """The cache of block `number`, and what all blocks share."""

    number: int
    inputs: GraphInputs
    shared: Shared


class _Decoder:
    def __init__(self, plan: Plan, architecture: Architecture) -> None:
        self._build = Operators()
        self._architecture = architecture
        self._network = architecture.network
        self._held = plan.by_source
        self._parameters: list[Node] = []
        self._parts: list[StoredConstant] = []
        self._weights: dict[str, Node] = {}

    def graph(self) -> Graph:
        inputs = self._inputs()
        by = shared(self._build, inputs, self._architecture)
        hidden = self._embed(inputs)
        for number, block in enumerate(self._network.blocks):
            hidden = self._passed(hidden, block, _Cache(number, inputs, by))
        hidden = self._normed(hidden, self._network.norm)
        logits = self._project(hidden, self._network.head)
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
        build, table = self._build, self._weight(self._network.embedding.weight)
        ids = build.ops.convert(inputs.input_ids, "i32")
        return build.gather(table, ids, build.integer(0))

    def _passed(self, hidden: Node, block: Block, cache: _Cache) -> Node:
        """What leaves a block that `hidden` entered."""
        ops, left = self._build.ops, hidden
        for step in block.steps:
            taken = left if step.norm is None else self._normed(hidden, step.norm)
            outputs = self._project(taken, step.linear)
            if step.then is None:
                hidden = ops.add(hidden, outputs)
            elif isinstance(step.then, Attention):
                left = self._attended(outputs, step.then, cache)
            else:
                gate, up = self._split(outputs, [step.then.width] * 2)
                left = ops.multiply(up, ops.swish(gate))
        return hidden

    def _attended(self, fused: Node, part: Attention, cache: _Cache) -> Node:
        """What attention leaves of its fused projection (batch, tokens, rows)."""
        build, ops, by, inputs = self._build, self._build.ops, cache.shared, cache.inputs
        counts = (part.heads, part.kv_heads, part.kv_heads)
        split = self._split(fused, [count * part.head_size for count in counts])
        queries, keys, values = (
            ops.transpose(
                ops.reshape(piece, build.integers([0, 0, count, part.head_size]), True),
                build.integers([0, 2, 1, 3]),
            )
            for piece, count in zip(split, counts, strict=True)
        )
        queries, keys = (rotate(build, piece, by, part) for piece in (queries, keys))
        keys = remember(build, keys, f"past_key_values.{cache.number}.key", by, inputs)
        values = remember(build, values, f"past_key_values.{cache.number}.value", by, inputs)
        mixed = ops.scaled_dot_product_attention(
            queries,
            widen_heads(build, keys, part),
            widen_heads(build, values, part),
            by.mask,
            build.floats(np.array(part.head_size**-0.5, np.float32)),
        )
        mixed = ops.transpose(mixed, build.integers([0, 2, 1, 3]))
        return ops.reshape(mixed, build.integers([0, 0, part.width]), True)

    def _split(self, whole: Node, sizes: list[int]) -> list[Node]:
        build = self._build
        pieces = build.ops.variadic_split(whole, build.integer(2), build.integers(sizes))
        return list(pieces.outputs())

    def _normed(self, hidden: Node, norm: Norm) -> Node:
        build, ops = self._build, self._build.ops
        gains = self._weight(norm.gains)
        mean = ops.reduce_mean(
            ops.power(hidden, build.floats(np.full((1, 1, 1), 2, np.float32))),
            build.integers([-1]),
            keep_dims=True,
        )
        epsilon = np.full((1, 1, 1), norm.epsilon, np.float32)
        root = ops.sqrt(ops.add(mean, build.floats(epsilon)))
        scaled = ops.divide(build.floats(np.ones((1, 1, 1), np.float32)), root)
        return ops.multiply(ops.multiply(hidden, scaled), gains)

    def _project(self, inputs: Node, layer: Linear) -> Node:
        """The outputs of a linear layer; where its parts are stored, side by side as if fused."""
        ops = self._build.ops
        products = [
            ops.matmul(inputs, self._stored_weight(row), False, True)
            for row in self._held[layer.weight.name]
        ]
        return products[0] if len(products) == 1 else ops.concat(products, -1)

    def _weight(self, weight: Weight) -> Node:
        """A weight that is stored as one tensor, in float32."""
        (row,) = self._held[weight.name]
        return self._stored_weight(row)

    def _stored_weight(self, row: PlanRow) -> Node:
        """The float32 weight: the stored arrays and, where they are not float32, what decodes them.

        One subgraph a weight, whoever asks: a tied head shares the embedding's.
        """
        if row.output not in self._weights:
            parts = {part.part: self._stored(part) for part in stored_constants(row)}
            self._weights[row.output] = self._decoded(row, parts)
        return self._weights[row.output]

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
