"""The calibration sample on its way through a network, one linear layer at a time.

A block of the network is some linear layers, each of which takes the residual stream h or what the
one before it left (`network.parts.Step`). `HiddenStates` holds h, (tokens, hidden), and what
attention or SwiGLU left for the next layer, (tokens, width), in mapped files: they are not memory
that the job needs, and only a chunk of sequences is worked on at a time. Weights are handed in
layer by layer, so that the same sample can go through the original and through several quantized
networks side by side.

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
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.gate import swiglu
from phiquant.phi.network.norm import rms_norm
from phiquant.phi.network.parts import Attention, Network, Step
from phiquant.phi.network.stack import mixed, stacked, turned
from phiquant.phi.weights import Floats, Tokens

CHUNK_TOKENS = 4096
"""Tokens that are worked on at a time: enough for matrix products at full speed."""


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
        network = architecture.network
        count, length = sequences.shape
        shape = (count, length, network.embedding.columns)
        self._paths = [path.with_name(f"{path.name}.hidden-{at}") for at in range(2)]
        self._states = [_mapped(each, shape, old=blocks > 0) for each in self._paths]
        self._at, self._enters = blocks % 2, False
        self._left = _mapped(path.with_name(f"{path.name}.left"), (count, length, widest(network)))
        self._one = stacked(network.rope, [(0, length)])

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
        return here.reshape(-1, self._states[0].shape[2])

    def inputs(self, chunk: Chunk, step: Step, gains: Floats | None) -> Floats:
        """The inputs (tokens, in) of a step's layer; `gains` are of the norm before it."""
        if step.norm is not None:
            assert gains is not None
            return rms_norm(self.hidden(chunk), gains, step.norm.epsilon)
        left = self._left[chunk.first : chunk.last].reshape(-1, self._left.shape[2])
        return np.ascontiguousarray(left[:, : step.linear.columns])

    def advance(self, chunk: Chunk, step: Step, inputs: Floats, weight: Floats) -> None:
        """Take the chunk through a step's layer, whose weight is (out, in)."""
        outputs = np.empty((len(inputs), len(weight)), np.float32)
        multiply(inputs, weight, outputs)
        here = slice(chunk.first, chunk.last)
        if step.then is None:
            old = self._states[self._at][here]
            new = self._states[1 - self._at][here] if self._enters else old
            added = outputs.reshape(old.shape)
            for_each(range(len(old)), lambda at: np.add(old[at], added[at], out=new[at]))
            return
        left = self._left[here].reshape(len(outputs), -1)
        into = left[:, : step.then.width]
        if isinstance(step.then, Attention):
            stack = self._one.repeated(len(outputs) // self.sequences.shape[1])
            mixed(step.then, turned(step.then, outputs, stack.rotation), stack, into)
        else:
            swiglu(outputs, into)

    def enter(self) -> None:
        """Begin a block: the first of its layers that adds to h writes to the other file."""
        self._enters = True

    def passed(self, step: Step) -> None:
        """Note that all chunks went through a step's layer."""
        if step.then is None and self._enters:
            self._at, self._enters = 1 - self._at, False


def widest(network: Network) -> int:
    """Values that attention or a gate leaves for a token, at most."""
    parts = (step.then for block in network.blocks for step in block.steps)
    return max(part.width for part in parts if part is not None)


def _mapped(path: Path, shape: tuple[int, ...], *, old: bool = False) -> Floats:
    array = (
        old_array(path, np.float32, shape, writable=True)
        if old
        else new_array(path, np.float32, shape)
    )
    return array.view(np.float32)
