"""The sample's walk through the original and the networks that are being made from it.

Layer by layer: gather the moments of what the layer takes in each quantized network, round its
weight against them, and take every network's sample through its own weight. A layer is thus
rounded for the inputs that the layers before it, rounded already, really give.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from phiquant.calibration.moments import Moments
from phiquant.calibration.stream import LINEAR, Stream
from phiquant.phi.architecture import Role, Weight
from phiquant.phi.weights import Floats, WeightSource


class Network(Protocol):
    """A network in the making."""

    stream: Stream

    def round(self, weight: Weight, values: Floats, moments: Moments) -> Floats:
        """Round `values` (out, in) of a weight, keep what is stored, and return what it decodes to."""


def walk(
    source: WeightSource,
    original: Stream | None,
    networks: Sequence[Network],
    step: Callable[[Weight], None],
) -> None:
    """Take all streams, whose samples are embedded already, from the first block to the last.

    `original` is the stream of the unquantized network, None where nobody needs its inputs.
    `step` is called after each layer.
    """
    by_place = {(weight.layer, weight.role): weight for weight in source.architecture.weights()}
    gains = {Role.QKV: Role.ATTENTION_NORM, Role.GATE_UP: Role.FFN_NORM}
    for layer in range(source.architecture.layers):
        for role in LINEAR:
            weight = by_place[layer, role]
            norm = by_place.get((layer, gains[role])) if role in gains else None
            norms = None if norm is None else source.weight(norm.name)
            values = source.weight(weight.name)
            through_layer(original, networks, weight, (values, norms))
            step(weight)


def through_layer(
    original: Stream | None,
    networks: Sequence[Network],
    weight: Weight,
    values: tuple[Floats, Floats | None],
) -> None:
    """One layer: moments, rounding, and on."""
    here, norms = values
    moments = gather(original, networks, weight, norms)
    decoded = [
        network.round(weight, here, moment)
        for network, moment in zip(networks, moments, strict=True)
    ]
    pairs = [(original, here)] if original is not None else []
    pairs += [(network.stream, made) for network, made in zip(networks, decoded, strict=True)]
    for stream, matrix in pairs:
        for chunk in stream.chunks():
            inputs = stream.inputs(chunk, weight.role, norms)
            stream.advance(chunk, weight.role, inputs, matrix)


def gather(
    original: Stream | None,
    networks: Sequence[Network],
    weight: Weight,
    gains: Floats | None,
) -> list[Moments]:
    """The moments of the layer's inputs in every network."""
    moments = [Moments(weight.shape[1], original is not None) for _ in networks]
    first = networks[0].stream
    for chunk in first.chunks():
        true = None if original is None else original.inputs(chunk, weight.role, gains)
        for network, moment in zip(networks, moments, strict=True):
            moment.add(network.stream.inputs(chunk, weight.role, gains), true)
    return moments
