"""The sample's walk through the original and the networks that are being made from it.

Layer by layer: gather the moments of what the layer takes in each quantized network, round its
weight against them, and take every network's sample through its own weight. A layer is thus
rounded for the inputs that the layers before it, rounded already, really give.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from phiquant.calibration.hidden_states import LINEAR, HiddenStates
from phiquant.calibration.moments import Moments
from phiquant.phi.architecture import Role, Weight
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
    by_place = {(weight.layer, weight.role): weight for weight in source.architecture.weights()}
    gains = {Role.QKV: Role.ATTENTION_NORM, Role.GATE_UP: Role.FFN_NORM}
    for role in LINEAR:
        weight = by_place[layer, role]
        norms = source.weight(by_place[layer, gains[role]].name) if role in gains else None
        _through(source.weight(weight.name), sides, weight, norms)
        yield weight


def _through(values: Floats, sides: Sides, weight: Weight, norms: Floats | None) -> None:
    """Take the sample through one layer: gather its moments, round its weight, multiply by it."""
    moments = gather(sides, weight, norms)
    decoded = [
        network.round(weight, values, moment)
        for network, moment in zip(sides.networks, moments, strict=True)
    ]
    pairs = [(sides.original, values)] if sides.original is not None else []
    pairs += [(network.states, made) for network, made in zip(sides.networks, decoded, strict=True)]
    for states, matrix in pairs:
        for chunk in states.chunks():
            inputs = states.inputs(chunk, weight.role, norms)
            states.advance(chunk, weight.role, inputs, matrix)
        states.passed(weight.role)


def gather(sides: Sides, weight: Weight, gains: Floats | None) -> list[Moments]:
    """The moments of the layer's inputs in every network."""
    original, networks = sides.original, sides.networks
    moments = [Moments(weight.shape[1]) for _ in networks]
    adds = weight.role in (Role.ATTENTION_OUTPUT, Role.DOWN)
    first = networks[0].states
    for chunk in first.chunks():
        true = None if original is None else original.inputs(chunk, weight.role, gains)
        for network, moment in zip(networks, moments, strict=True):
            inputs = network.states.inputs(chunk, weight.role, gains)
            behind = None
            if original is not None and adds:
                behind = original.hidden(chunk) - network.states.hidden(chunk)
            moment.add(inputs, true, behind)
    return moments
