"""One block of the network with its weights at hand, forwards and in reverse.

The reverse gives the gradients of a loss with respect to the outputs of the linear layers and to
what entered, from that with respect to what left; none with respect to weights. What it needs of
the inside is computed again from what entered, so that between the two directions that is all
that must be kept (https://arxiv.org/abs/1604.06174).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phiquant.host.threads import multiply
from phiquant.phi.network.gate import swiglu, swiglu_backward
from phiquant.phi.network.norm import rms_norm, rms_norm_backward
from phiquant.phi.network.parts import Attention, Linear, Norm, Step
from phiquant.phi.network.stack import Heads, Stack, mixed, mixed_backward, stacked, turned
from phiquant.phi.weights import Floats, WeightSource

OnGradient = Callable[[Linear, Floats], None]
"""Told a linear layer and the gradient (tokens, out) with respect to its outputs."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What the reverse needs of a step that reads the residual stream.

    The stream (tokens, hidden) that the step read, and what its outputs were: `heads` as they are
    turned, before attention, or gate and up (tokens, 2 * inner), `fused`.
    """

    stream: Floats
    heads: Heads | None = None
    fused: Floats | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """A block up to its last linear layer: the stream before that is added to, and the traces."""

    stream: Floats
    traces: tuple[Trace | None, ...]


class HeldBlock:
    """A block of `source`, its weights in memory, for sequences of `length` tokens each."""

    def __init__(self, source: WeightSource, layer: int, length: int) -> None:
        network = source.architecture.network
        self._block = network.blocks[layer]
        self._weights = {weight.name: source.weight(weight.name) for weight in self._block.weights}
        self._length = length
        self._one = stacked(network.rope, [(0, length)])

    def inside(self, hidden: Floats) -> Inside:
        """Everything up to the last layer, for `hidden` (tokens, hidden) of whole sequences."""
        stream, left = hidden, hidden
        traces: list[Trace | None] = []
        for step in self._block.steps[:-1]:
            outputs = self._outputs(step, left if step.norm is None else stream)
            if step.then is None:
                stream = stream + outputs
                traces.append(None)
            elif isinstance(step.then, Attention):
                heads = turned(step.then, outputs, self._stack(len(outputs)).rotation)
                traces.append(Trace(stream, heads=heads))
                left = mixed(step.then, heads, self._stack(len(outputs)))
            else:
                traces.append(Trace(stream, fused=outputs))
        return Inside(stream, tuple(traces))

    def outputs(self, inside: Inside) -> Floats:
        """What leaves the block, (tokens, hidden)."""
        last, trace = self._block.steps[-1], inside.traces[-1]
        assert trace is not None and trace.fused is not None
        gated = np.empty((len(trace.fused), last.linear.columns), np.float32)
        swiglu(trace.fused, gated)
        left = self._outputs(last, gated)
        left += inside.stream
        return left

    def backward(self, inside: Inside, gradient: Floats, on_gradient: OnGradient) -> Floats:
        """The gradient with respect to what entered, from that of what left: (tokens, hidden).

        `on_gradient` is told those of the linear layers on the way.
        """
        of_stream, of_left = gradient, gradient
        for step, trace in zip(
            reversed(self._block.steps), (None, *reversed(inside.traces)), strict=True
        ):
            if trace is None:
                on_gradient(step.linear, of_stream)
                of_left = self._back(step.linear, of_stream)
                continue
            of_outputs = self._unleft(step, trace, of_left)
            on_gradient(step.linear, of_outputs)
            of_normed = self._back(step.linear, of_outputs)
            del of_outputs
            of_stream = of_stream + self._unnormed(step.norm, trace.stream, of_normed)
        return of_stream

    def _unleft(self, step: Step, trace: Trace, gradient: Floats) -> Floats:
        """The gradient with respect to a step's outputs, from that of what it left."""
        if isinstance(step.then, Attention):
            assert trace.heads is not None
            return mixed_backward(step.then, trace.heads, self._stack(len(gradient)), gradient)
        assert trace.fused is not None
        return swiglu_backward(trace.fused, gradient)

    def _outputs(self, step: Step, inputs: Floats) -> Floats:
        """The outputs of a step's layer: `inputs` are the stream, or what the last step left."""
        if step.norm is not None:
            gains = self._weights[step.norm.gains.name]
            inputs = rms_norm(inputs, gains, step.norm.epsilon)
        outputs = np.empty((len(inputs), step.linear.rows), np.float32)
        multiply(inputs, self._weights[step.linear.weight.name], outputs)
        return outputs

    def _stack(self, tokens: int) -> Stack:
        return self._one.repeated(tokens // self._length)

    def _back(self, layer: Linear, gradient: Floats) -> Floats:
        of_inputs = np.empty((len(gradient), layer.columns), np.float32)
        multiply(gradient, self._weights[layer.weight.name].T, of_inputs)
        return of_inputs

    def _unnormed(self, norm: Norm | None, hidden: Floats, gradient: Floats) -> Floats:
        assert norm is not None
        return rms_norm_backward(hidden, self._weights[norm.gains.name], norm.epsilon, gradient)
