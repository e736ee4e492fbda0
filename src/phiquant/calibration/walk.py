"""The sample's walk through the original and the networks that are being made from it.

Layer by layer: gather the moments of what the layer takes in each quantized network, round its
weight against them, and take every network's sample through its own weight. A layer is thus
rounded for the inputs that the layers before it, rounded already, really give.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from phiquant.calibration.hidden_states import HiddenStates
from phiquant.calibration.moments import Moments
from phiquant.phi.network.parts import Step, Weight
from phiquant.phi.weights import Floats, WeightSource


class Network(Protocol):
    """A network in the making."""

    states: HiddenStates

    def round(self, weight: Weight, values: Floats, moments: Moments) -> Floats:
        """Round and keep `values` (out, in) of a weight; returns what is decoded from storage."""


@dataclass(frozen=True, slots=True)
class Sides:
    """One sample's hidden states: in the original, where it is needed, and in each network."""

    original: HiddenStates | None
    networks: Sequence[Network]


def walk_block(source: WeightSource, sides: Sides, layer: int) -> Iterator[Weight]:
    """Take the sample through a block of the network; each layer is yielded when it is done."""
    originals = [sides.original] if sides.original is not None else []
    for states in (*originals, *(network.states for network in sides.networks)):
        states.enter()
    for step in source.architecture.network.blocks[layer].steps:
        _through(source, sides, step)
        yield step.linear.weight


def _through(source: WeightSource, sides: Sides, step: Step) -> None:
    """Take the sample through one layer: gather its moments, round its weight, multiply by it."""
    weight, values = step.linear.weight, source.weight(step.linear.weight.name)
    gains = None if step.norm is None else source.weight(step.norm.gains.name)
    moments = gather(sides, step, gains)
    decoded = [
        network.round(weight, values, moment)
        for network, moment in zip(sides.networks, moments, strict=True)
    ]
    pairs = [(sides.original, values)] if sides.original is not None else []
    pairs += [(network.states, made) for network, made in zip(sides.networks, decoded, strict=True)]
    for states, matrix in pairs:
        for chunk in states.chunks():
            inputs = states.inputs(chunk, step, gains)
            states.advance(chunk, step, inputs, matrix)
        states.passed(step)


def gather(sides: Sides, step: Step, gains: Floats | None) -> list[Moments]:
    """The moments of a layer's inputs in every network; `gains` are of the norm before it."""
    original, networks = sides.original, sides.networks
    moments = [Moments(step.linear.columns) for _ in networks]
    adds = step.norm is None
    first = networks[0].states
    for chunk in first.chunks():
        true = None if original is None else original.inputs(chunk, step, gains)
        for network, moment in zip(networks, moments, strict=True):
            inputs = network.states.inputs(chunk, step, gains)
            behind = None
            if original is not None and adds:
                behind = original.hidden(chunk) - network.states.hidden(chunk)
            moment.add(inputs, true, behind)
    return moments
