"""The calibration sample on its way through a network, one linear layer at a time.

A block of the network is four linear layers, each of which takes what the one before it left:

    QKV               norm(h)                    → attention's inputs
    ATTENTION_OUTPUT  attention(qkv)             → h += ·
    GATE_UP           norm(h)                    → silu(gate) * up
    DOWN              silu(gate) * up            → h += ·

`HiddenStates` holds h, (tokens, hidden), and what attention or SwiGLU left for the next layer,
(tokens, width), in mapped files: they are not memory that the job needs, and only a chunk of
sequences is worked on at a time. Weights are handed in layer by layer, so that the same sample can
go through the original and through several quantized networks side by side.

h has two files that take turns: block k reads file k % 2, and file (k + 1) % 2 holds what leaves
it. A job that was killed within a block finds the block's input as it was.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phiquant.calibration.journal import Region
from phiquant.host.mapped import new_array, old_array
from phiquant.host.threads import for_each, multiply
from phiquant.phi.architecture import Architecture, Role
from phiquant.phi.attention import attend
from phiquant.phi.linear import multiply_by_silu, rms_norm
from phiquant.phi.rope import rotate, rotation
from phiquant.phi.weights import Floats, Tokens

CHUNK_TOKENS = 4096
"""Tokens that are worked on at a time: enough for matrix products at full speed."""

LINEAR = (Role.QKV, Role.ATTENTION_OUTPUT, Role.GATE_UP, Role.DOWN)
"""The linear layers of a block, in the order in which a token passes them."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole sequences that are worked on together: sequences `first` to `last`, exclusive."""

    first: int
    last: int


class HiddenStates:
    """`sequences` (count, length) of token ids at some point of a network."""

    def __init__(
        self, architecture: Architecture, sequences: Tokens, path: Path, blocks: int = 0
    ) -> None:
        """Make the files that begin with `path`, or go on with those that `blocks` done blocks
        left. Raises OSError if the disk has no room for them.
        """
        self.architecture = architecture
        self.sequences = sequences
        count, length = sequences.shape
        width = max(architecture.intermediate_size, architecture.heads * architecture.head_size)
        shape = (count, length, architecture.hidden_size)
        self._paths = [path.with_name(f"{path.name}.hidden-{at}") for at in range(2)]
        self._states = [_mapped(each, shape, old=blocks > 0) for each in self._paths]
        self._at = blocks % 2
        self._left = _mapped(path.with_name(f"{path.name}.left"), (count, length, width))
        self._turn = rotation(architecture.rope, np.arange(length), length)

    @property
    def region(self) -> Region:
        """The states where the sample is, and their file."""
        return Region(self._states[self._at], self._paths[self._at])

    def chunks(self) -> Iterator[Chunk]:
        """Chunks of all sequences, a few sequences each."""
        count, length = self.sequences.shape
        step = max(1, CHUNK_TOKENS // length)
        for first in range(0, count, step):
            yield Chunk(first, min(first + step, count))

    def embed(self, chunk: Chunk, rows: Floats) -> None:
        """Set the chunk's first states: `rows` (tokens, hidden), the embeddings of its tokens in
        order.
        """
        here = self._states[self._at][chunk.first : chunk.last]
        here[:] = rows.reshape(here.shape)

    def hidden(self, chunk: Chunk) -> Floats:
        """The residual stream of the chunk's tokens, (tokens, hidden); not to be written to."""
        here = self._states[self._at][chunk.first : chunk.last]
        return here.reshape(-1, self.architecture.hidden_size)

    def inputs(self, chunk: Chunk, role: Role, gains: Floats | None) -> Floats:
        """The inputs (tokens, in) of the layer of `role`; `gains` are of the norm before it."""
        here = slice(chunk.first, chunk.last)
        if role in (Role.QKV, Role.GATE_UP, Role.HEAD):
            assert gains is not None
            return rms_norm(self.hidden(chunk), gains, self.architecture.norm_epsilon)
        width = self.architecture.intermediate_size
        if role is Role.ATTENTION_OUTPUT:
            width = self.architecture.heads * self.architecture.head_size
        return np.ascontiguousarray(self._left[here].reshape(-1, self._left.shape[2])[:, :width])

    def advance(self, chunk: Chunk, role: Role, inputs: Floats, weight: Floats) -> None:
        """Take the chunk through the layer of `role`, whose weight is (out, in)."""
        outputs = np.empty((len(inputs), len(weight)), np.float32)
        multiply(inputs, weight, outputs)
        here = slice(chunk.first, chunk.last)
        if role in (Role.ATTENTION_OUTPUT, Role.DOWN):
            old = self._states[self._at][here]
            new = self._states[1 - self._at][here] if role is Role.ATTENTION_OUTPUT else old
            added = outputs.reshape(old.shape)
            for_each(range(len(old)), lambda at: np.add(old[at], added[at], out=new[at]))
            return
        left = self._left[here].reshape(len(outputs), -1)
        if role is Role.QKV:
            self._attend(outputs, left)
        else:
            inner = outputs.shape[1] // 2
            multiply_by_silu(outputs[:, :inner], outputs[:, inner:], left[:, :inner])

    def passed(self, role: Role) -> None:
        """Note that all chunks went through the layer of `role`."""
        if role is Role.ATTENTION_OUTPUT:
            self._at = 1 - self._at

    def _attend(self, fused: Floats, left: Floats) -> None:
        """Attention of whole sequences (tokens, qkv) to the first columns of `left`."""
        model, length = self.architecture, self.sequences.shape[1]
        turn = self._turn.repeated(len(fused) // length)
        split = fused.reshape(len(fused), -1, model.head_size)
        queries, keys, values = np.split(split, [model.heads, model.heads + model.kv_heads], 1)
        queries, keys = rotate(queries, turn), rotate(keys, turn)
        into = left[:, : model.heads * model.head_size]
        for first in range(0, len(fused), length):
            here = slice(first, first + length)
            attend(queries[here], keys[here], values[here], model.sliding_window, into[here])


def _mapped(path: Path, shape: tuple[int, ...], *, old: bool = False) -> Floats:
    array = (
        old_array(path, np.float32, shape, writable=True)
        if old
        else new_array(path, np.float32, shape)
    )
    return array.view(np.float32)
