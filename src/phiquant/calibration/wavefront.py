"""What rounding each matrix alone does to the output, all matrices in one reading of the weights.

Rounding one matrix leaves everything before it untouched. So the sample goes through the network
once, and at every layer sends off a variant for each of its matrices (`Linear.parts`), in which
that matrix alone is rounded; variants ride along with the original to the head, as more tokens in
the same products, and there their divergence from it is measured. The work is about half a forward
pass of the layers and a whole one of the head for each variant; the memory, the variants' hidden
states and one chunk's activations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from phiquant.calibration.anchor import Anchor, Perturbed
from phiquant.calibration.divergence import Candidates, Nats, divergences
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Linear, Part
from phiquant.phi.network.stack import Stack
from phiquant.phi.reference import Observe, Reference
from phiquant.phi.weights import Floats, Tokens, WeightSource

CHUNK_TOKENS = 4096
"""Tokens that go through a layer together."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A variant of the network: `part` is the matrix that is rounded, by `anchor`."""

    part: Part
    anchor: Anchor


class Wavefront:
    """`windows` of tokens and their variants, on their way through the network of `source`."""

    def __init__(
        self, source: WeightSource, windows: Sequence[Tokens], anchors: Sequence[Anchor]
    ) -> None:
        """Without `anchors` there are no variants, only a plain forward pass."""
        self._source = source
        self._windows = windows
        pairs = product(source.architecture.network.matrices, anchors)
        self.variants = tuple(Perturbation(*pair) for pair in pairs)
        tokens = sum(len(window) for window in windows)
        size = (1 + len(self.variants), tokens, source.architecture.hidden_size)
        # The original first, then the variants in order; pages are taken when they are filled.
        self._states = np.empty(size, np.float32)
        self._live = 0

    def run(self, observe: Observe, advance: Callable[[int], None]) -> Nats:
        """The variants' divergences in nats, (variants, tokens).

        `observe` is told the original's inputs, `advance` the work done, in the unit of `work`.
        """
        original = Reference(self._source, observe=observe)
        hidden, stack = original.embedded(self._windows)
        self._add(hidden)
        network = self._source.architecture.network
        for variant in self._of(network.embedding):
            self._add(self._forward(variant).embedded(self._windows)[0])
        step = layer_work(self._source.architecture, len(hidden))
        for layer, block in enumerate(network.blocks):
            before = self._states[0].copy()
            original.layer(layer, self._states[0], stack)
            self._ride(layer, stack)
            advance(self._live * step)
            for variant in self._of(*(step.linear for step in block.steps)):
                self._forward(variant).layer(layer, self._add(before), stack)
                advance(step)
        for _ in () if network.is_tied else self._of(network.head):
            self._add(self._states[0])
        assert self._live == len(self._states)
        return self._diverged(observe, advance)

    def _ride(self, layer: int, stack: Stack) -> None:
        """Take the variants that were sent off before through a layer."""
        reference, step = Reference(self._source), max(1, CHUNK_TOKENS // stack.tokens)
        for first in range(1, self._live, step):
            riders = self._states[first : min(first + step, self._live)]
            flat = riders.reshape(-1, riders.shape[-1])
            reference.layer(layer, flat, stack.repeated(len(riders)))

    def _of(self, *layers: Linear) -> list[Perturbation]:
        """The variants in which a matrix of one of these layers is rounded."""
        parts = {part.name for layer in layers for part in layer.parts}
        return [variant for variant in self.variants if variant.part.name in parts]

    def _add(self, hidden: Floats) -> Floats:
        """Fill the states of the next variant with `hidden`, and return them."""
        place: Floats = self._states[self._live]
        place[:] = hidden
        self._live += 1
        return place

    def _forward(self, variant: Perturbation) -> Reference:
        return Reference(self._perturbed(variant))

    def _perturbed(self, variant: Perturbation) -> Perturbed:
        return Perturbed(self._source, variant.part, variant.anchor)

    def _diverged(self, observe: Observe, advance: Callable[[int], None]) -> Nats:
        reference, name = Reference(self._source), self._source.architecture.head_name
        for state in self._states:
            state[:] = reference.normed(state)
        observe(name, self._states[0])
        if not self.variants:
            return np.empty((0, self._states.shape[1]))
        heads: list[WeightSource] = [
            self._perturbed(variant) if variant.part.weight.name == name else self._source
            for variant in self.variants
        ]
        return divergences(
            self._source, self._states[0], Candidates(self._states[1:], heads), advance
        )


def layer_work(architecture: Architecture, tokens: int) -> int:
    """Multiplications by weights of one layer for so many tokens."""
    layers = [step.linear for step in architecture.network.blocks[0].steps]
    return tokens * sum(layer.rows * layer.columns for layer in layers)


def work(architecture: Architecture, tokens: int, anchors: int) -> int:
    """Multiplications by weights of the whole pass."""
    layers, head = architecture.layers, architecture.hidden_size * architecture.vocabulary_size
    inside = sum(part.weight.layer == 0 for part in architecture.network.matrices)
    riders = sum(1 + anchors * (1 + inside * layer) for layer in range(layers))
    riders += inside * anchors * layers
    variants = anchors * (inside * layers + (1 if architecture.tied_head else 2))
    heads = 0 if not anchors else tokens * head * (2 + variants)
    return riders * layer_work(architecture, tokens) + heads
