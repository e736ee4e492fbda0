"""Second moments of the gradients at every linear layer's outputs, by one run there and back.

G = E[g gᵀ], with g the gradient of log p(label) with respect to a layer's outputs and the label
drawn from the model's own distribution, is the outputs' side of the Fisher information's
Kronecker factors (https://arxiv.org/abs/1503.05671; for rounding, https://arxiv.org/abs/2505.22988).
It is taken over fewer tokens than the moments of inputs: TOKENS of the sample at most.

Forwards, each block takes all tokens on before the next is read, and its input is kept in a mapped
file, (layers + 2, tokens, hidden). At the head, labels are drawn (`sampled_labels`). On the way
back each block computes its inside again from the input kept (`held_block`), and the gradients take
turns in the last two places: a step never writes what it reads, so that a job that was killed goes
on at the step it was in. Of G only the diagonal blocks of ROWS outputs are gathered, as rounding
takes rows: (blocks, ROWS, ROWS), the last one padded with zeros.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from phiquant.calibration.journal import Journal, Region
from phiquant.calibration.sampled_labels import label_gradient
from phiquant.host.mapped import new_array, old_array
from phiquant.host.threads import for_each
from phiquant.phi.network.held_block import HeldBlock
from phiquant.phi.network.linear import embed
from phiquant.phi.network.norm import rms_norm, rms_norm_backward
from phiquant.phi.network.parts import Linear
from phiquant.phi.weights import Floats, Tokens, WeightSource
from phiquant.quantization.feedback.rounder import ROWS

TOKENS = 1 << 13
"""Tokens of the sample that are taken, at most; at least one sequence. Twice as many made no
difference to a small model in 4 bits."""
CHUNK_TOKENS = 2048
"""Tokens that go through a block together; backwards, more is held of each than forwards."""
SEED = 20250529


def taken(sequences: Tokens) -> Tokens:
    """The first of `sequences` (count, length), over which the run goes."""
    return sequences[: max(1, TOKENS // sequences.shape[1])]


def ways(layers: int) -> tuple[str, ...]:
    """The steps of the run: all blocks forwards, the head, all blocks backwards."""
    return ("forward",) * layers + ("head",) + ("backward",) * layers


def gather_output_moments(
    source: WeightSource, sequences: Tokens, journal: Journal
) -> Iterator[str]:
    """Keep the output moments of every linear layer but the head in `journal`.

    Yields each of `ways` when it is done; steps that the journal has already are not done again.
    """
    layers = source.architecture.layers
    path, steps = journal.directory / "states", ways(layers)
    if journal.output_steps == len(steps):
        _remove(path, journal)  # a job killed at the very end left it
        return
    run = _Run(source, taken(sequences), path, journal.output_steps)
    for step in range(journal.output_steps, len(steps)):
        if step < layers:
            run.forward(step, journal)
        elif step == layers:
            run.turn()
        else:
            layer = 2 * layers - step
            for name, moments in run.backward(layer).items():
                journal.keep_output_moments(name, moments)
        journal.complete_outputs(step + 1, [run.newest])
        yield steps[step]
    del run  # the file is mapped, and an open mapping cannot be removed everywhere
    _remove(path, journal)


def _remove(path: Path, journal: Journal) -> None:
    journal.forget(path.name)
    path.unlink(missing_ok=True)


class OutputMoments:
    """The diagonal blocks of E[g gᵀ] for the gradients of one layer's outputs."""

    def __init__(self, rows: int) -> None:
        self._tokens = 0
        self._sums = np.zeros((-(-rows // ROWS), ROWS, ROWS), np.float32)

    def add(self, gradient: Floats) -> None:
        """Take in g (tokens, rows)."""
        self._tokens += len(gradient)

        def work(block: int) -> None:
            part = gradient[:, block * ROWS : (block + 1) * ROWS]
            width = part.shape[1]
            self._sums[block, :width, :width] += part.T @ part

        for_each(range(len(self._sums)), work)

    @property
    def blocks(self) -> Floats:
        """(blocks, ROWS, ROWS)."""
        return self._sums / np.float32(self._tokens)


class _Run:
    """The states of `sequences` at all block inputs, and their gradients."""

    def __init__(self, source: WeightSource, sequences: Tokens, path: Path, steps: int) -> None:
        """Begin, or go on with the file that `steps` steps left."""
        self._source, self._sequences = source, sequences
        model = source.architecture
        shape = (model.layers + 2, sequences.size, model.hidden_size)
        self._path, self._newest = path, 0
        if steps:
            self._states: Floats = old_array(path, np.float32, shape, writable=True).view(
                np.float32
            )
            return
        self._states = new_array(path, np.float32, shape).view(np.float32)
        self._embed()

    @property
    def newest(self) -> Region:
        """The states or gradients that the last step left."""
        return self._region(self._newest)

    def _region(self, at: int) -> Region:
        states = self._states[at]
        return Region(states, self._path, at % len(self._states) * states.nbytes)

    def _chunks(self) -> Iterator[slice]:
        """Tokens of whole sequences."""
        count, length = self._sequences.shape
        step = max(1, CHUNK_TOKENS // length)
        for first in range(0, count, step):
            yield slice(first * length, min(first + step, count) * length)

    def _embed(self) -> None:
        ids = self._sequences.reshape(-1)
        for here in self._chunks():
            self._states[0, here] = embed(self._source, ids[here])

    def forward(self, layer: int, journal: Journal) -> None:
        """Take the states through a block; what went in is for the way back, and is kept."""
        block = self._block(layer)
        for here in self._chunks():
            self._states[layer + 1, here] = block.outputs(block.inside(self._states[layer, here]))
        journal.keep(self._region(layer))
        self._newest = layer + 1

    def turn(self) -> None:
        """The gradient with respect to what leaves the last block."""
        norm = self._source.architecture.network.norm
        gains = self._source.weight(norm.gains.name)
        draws = np.random.default_rng(SEED).random(self._sequences.size)
        # All tokens at a time: a head takes long to read.
        hidden = np.array(self._states[-2])
        normed = rms_norm(hidden, gains, norm.epsilon)
        gradient, _ = label_gradient(self._source, normed, draws)
        self._states[-1] = rms_norm_backward(hidden, gains, norm.epsilon, gradient)
        self._newest = -1

    def backward(self, layer: int) -> dict[str, Floats]:
        """Take the gradient through a block; the output moments of its linear layers."""
        block = self._block(layer)
        by_name: dict[str, OutputMoments] = {}
        old, new = -1, -2
        if (self._source.architecture.layers - layer) % 2 == 0:
            old, new = new, old

        def add(linear: Linear, gradient: Floats) -> None:
            name = linear.weight.name
            if name not in by_name:
                by_name[name] = OutputMoments(linear.rows)
            by_name[name].add(gradient)

        for here in self._chunks():
            hidden, gradient = np.array(self._states[[layer, old], here])
            self._states[new, here] = block.backward(block.inside(hidden), gradient, add)
        self._newest = new
        return {name: moments.blocks for name, moments in by_name.items()}

    def _block(self, layer: int) -> HeldBlock:
        return HeldBlock(self._source, layer, self._sequences.shape[1])
