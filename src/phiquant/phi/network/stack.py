"""Sequences stacked along the token axis, and a block's attention over them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from phiquant.phi.network.attention import attend
from phiquant.phi.network.attention_gradient import attend_backward
from phiquant.phi.network.parts import Attention, Rope
from phiquant.phi.network.rope import Rotation, rotate, rotation
from phiquant.phi.weights import Floats

Heads = tuple[Floats, Floats, Floats]
"""Queries (tokens, heads, head_size), keys and values (tokens, kv_heads, head_size)."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Where each sequence lies among the tokens of all, and how its tokens are turned."""

    spans: tuple[tuple[int, int], ...]
    rotation: Rotation

    @property
    def tokens(self) -> int:
        """Tokens of all sequences."""
        return self.spans[-1][1]

    def repeated(self, times: int) -> "Stack":
        """The same sequences several times, one after another."""
        starts = [copy * self.tokens for copy in range(times)]
        spans = tuple((at + a, at + b) for at in starts for a, b in self.spans)
        return Stack(spans, self.rotation.repeated(times))


def stacked(rope: Rope, ranges: Sequence[tuple[int, int]]) -> Stack:
    """Stack the position `ranges` of sequences, each of which ends where its range ends."""
    turns = [rotation(rope, np.arange(first, last), last) for first, last in ranges]
    edges = np.cumsum([0, *(last - first for first, last in ranges)]).tolist()
    whole = Rotation(
        np.concatenate([turn.cos for turn in turns]),
        np.concatenate([turn.sin for turn in turns]),
    )
    return Stack(tuple(pairwise(edges)), whole)


def turned(part: Attention, fused: Floats, by: Rotation) -> Heads:
    """Queries and keys as they are turned, and values, of the outputs (tokens, rows) of `qkv`."""
    split = fused.reshape(len(fused), -1, part.head_size)
    queries, keys, values = np.split(split, [part.heads, part.heads + part.kv_heads], 1)
    return rotate(queries, by), rotate(keys, by), values


def mixed(part: Attention, heads: Heads, stack: Stack, out: Floats | None = None) -> Floats:
    """What attention leaves of every token, (tokens, width), each sequence by itself: `out`."""
    queries, keys, values = heads
    if out is None:
        out = np.empty((len(queries), part.width), np.float32)
    for first, last in stack.spans:
        here = slice(first, last)
        attend(queries[here], keys[here], values[here], part.window, out[here])
    return out


def mixed_backward(part: Attention, heads: Heads, stack: Stack, gradient: Floats) -> Floats:
    """The gradient with respect to the outputs of `qkv`, from that of what attention left."""
    gradients = tuple(np.empty_like(each) for each in heads)
    for first, last in stack.spans:
        here = slice(first, last)
        queries, keys, values = (each[here] for each in heads)
        parts = attend_backward((queries, keys, values), part.window, gradient[here])
        for into, of_part in zip(gradients, parts, strict=True):
            into[here] = of_part
    of_queries, of_keys, of_values = gradients
    # A turn's transpose is the turn back, scaled alike.
    back = Rotation(stack.rotation.cos, -stack.rotation.sin)
    fused = [rotate(of_queries, back), rotate(of_keys, back), of_values]
    return np.concatenate(fused, axis=1).reshape(len(gradient), -1)
