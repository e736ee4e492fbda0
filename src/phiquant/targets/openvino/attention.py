"""Attention as the runtime's own operators: rotary turn, state, mask.

Every subgraph here has the shape that OpenVINO's plugins look for when they fuse: see
`RoPEFusion*`, `StatefulSDPAFusion` and `SDPAToPagedAttention` in openvino's transformations.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention
from phiquant.phi.network.rope import frequencies
from phiquant.targets.openvino.operators import Node, Operators

MASKED = float(np.finfo(np.float32).min)
"""Added to the scores of keys that a query does not see."""


@dataclass(frozen=True, slots=True)
class GraphInputs:
    """The model's inputs: (batch, tokens), (batch, past + tokens), (batch, tokens), (batch,)."""

    input_ids: Node
    attention_mask: Node
    position_ids: Node
    beam_idx: Node


@dataclass(frozen=True, slots=True)
class Shared:
    """What all layers use: cos and sin (batch, 1, tokens, rotary dimensions), mask, batch."""

    cos: Node
    sin: Node
    mask: Node
    batch: Node


def shared(build: Operators, inputs: GraphInputs, architecture: Architecture) -> Shared:
    """The subgraphs that the layers have in common."""
    cos, sin = _rotation(build, inputs, architecture)
    ids = build.shape_of(inputs.input_ids)
    batch = build.gather(ids, build.integers([0]), build.integer(0))
    return Shared(cos, sin, _mask(build, inputs, architecture), batch)


def _rotation(
    build: Operators, inputs: GraphInputs, architecture: Architecture
) -> tuple[Node, Node]:
    """Cos and sin of every position's angles, each list of frequencies twice (NeoX halves)."""
    rope, ops = architecture.rope, build.ops
    short = frequencies(rope, 1)
    column = build.floats(short.reshape(1, -1, 1))
    if rope.long is not None:
        long = frequencies(rope, rope.long.original_positions + 1)
        # The running length: every sequence's last position is the greatest.
        last = ops.reduce_max(inputs.position_ids, build.integers([0, 1]), keep_dims=False)
        is_long = ops.greater_equal(last, build.integer(rope.long.original_positions))
        column = ops.select(is_long, build.floats(long.reshape(1, -1, 1)), column)
    positions = ops.convert(ops.unsqueeze(inputs.position_ids, build.integer(1)), "f32")
    batch = build.gather(build.shape_of(inputs.position_ids), build.integers([0]), build.integer(0))
    target = ops.concat([batch, build.integers([len(short)]), build.integers([1])], 0)
    column = ops.broadcast(column, target)
    angles = ops.transpose(ops.matmul(column, positions, False, False), build.integers([0, 2, 1]))
    angles = ops.concat([angles, angles], -1)
    turns = []
    for turn in (ops.cos(angles), ops.sin(angles)):
        scaled = turn
        if rope.long is not None:
            factor = np.array([[[rope.long.attention_factor]]], np.float32)
            scaled = ops.multiply(turn, build.floats(factor))
        turns.append(ops.unsqueeze(scaled, build.integer(1)))
    return turns[0], turns[1]


def rotate(build: Operators, heads: Node, by: Shared, part: Attention) -> Node:
    """Turn queries or keys (batch, heads, tokens, head_size)."""
    dimensions, size = part.rope.dimensions, part.head_size
    if dimensions == size:
        return _turn(build, heads, by, dimensions)
    turned = _turn(build, build.slice(heads, 0, dimensions), by, dimensions)
    return build.ops.concat([turned, build.slice(heads, dimensions, size)], -1)


def _turn(build: Operators, heads: Node, by: Shared, dimensions: int) -> Node:
    ops, half = build.ops, dimensions // 2
    left, right = build.slice(heads, 0, half), build.slice(heads, half, dimensions)
    minus = ops.multiply(right, build.floats(np.full((1, 1, 1, 1), -1, np.float32)))
    crossed = ops.concat([minus, left], -1)
    return ops.add(ops.multiply(heads, by.cos), ops.multiply(crossed, by.sin))


def remember(build: Operators, new: Node, name: str, by: Shared, inputs: GraphInputs) -> Node:
    """A layer's cached keys or values with `new` (batch, kv_heads, tokens, head_size) appended.

    The cache is a state of the model whose batch `beam_idx` reorders before each step.
    """
    ops = build.ops
    heads, size = (new.get_output_partial_shape(0)[axis].get_length() for axis in (1, 3))
    empty = ops.broadcast(
        build.floats(np.zeros((), np.float32)),
        ops.concat(
            [by.batch, build.integers([heads]), build.integers([0]), build.integers([size])], 0
        ),
    )
    past = build.read_state(name, [-1, heads, -1, size], empty)
    kept = build.gather(past, inputs.beam_idx, build.integer(0))
    whole = ops.concat([kept, new], -2)
    build.write_state(name, whole)
    return whole


def widen_heads(build: Operators, cached: Node, part: Attention) -> Node:
    """Repeat each key head for the queries that share it."""
    repeat = part.heads // part.kv_heads
    if repeat == 1:
        return cached
    ops = build.ops
    lengths = build.shape_of(cached)
    batch, kv_heads, tokens, size = (
        build.gather(lengths, build.integers([axis]), build.integer(0)) for axis in range(4)
    )
    spread = ops.broadcast(
        ops.unsqueeze(cached, build.integer(2)),
        ops.concat([batch, kv_heads, build.integers([repeat]), tokens, size], 0),
        broadcast_spec="BIDIRECTIONAL",
    )
    shape = [0, part.heads, -1, part.head_size]
    return ops.reshape(spread, build.integers(shape), special_zero=True)


def _mask(build: Operators, inputs: GraphInputs, architecture: Architecture) -> Node:
    """What is added to the scores (batch, 1, tokens, past + tokens): 0 where a query sees a key.

    A query at place i of the whole sequence sees the keys at j <= i that `attention_mask` does
    not pad and, with a sliding window, those with i - j < window.
    """
    ops = build.ops
    ids, whole = build.shape_of(inputs.input_ids), build.shape_of(inputs.attention_mask)
    count, length = (
        build.gather(shape, build.integer(1), build.integer(0)) for shape in (ids, whole)
    )
    zero, step = build.integer(0), build.integer(1)
    keys = ops.range(zero, length, step, "i64")
    queries = ops.range(ops.subtract(length, count), length, step, "i64")
    rows = ops.unsqueeze(queries, build.integer(1))
    columns = ops.unsqueeze(keys, build.integer(0))
    seen: Any = ops.less_equal(columns, rows)
    window = architecture.sliding_window
    if window is not None and window < architecture.max_positions:
        near = ops.greater(columns, ops.subtract(rows, build.integer(window)))
        seen = ops.logical_and(seen, near)
    seen = ops.unsqueeze(ops.unsqueeze(seen, build.integer(0)), build.integer(0))
    kept = ops.convert(inputs.attention_mask, "boolean")
    kept = ops.unsqueeze(ops.unsqueeze(kept, build.integer(1)), build.integer(1))
    return ops.select(
        ops.logical_and(seen, kept),
        build.floats(np.zeros((), np.float32)),
        build.floats(np.array(MASKED, np.float32)),
    )
