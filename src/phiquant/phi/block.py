"""One block of the network with its weights at hand, forwards and in reverse.

    between = h + o(attention(rope(qkv(norm(h)))))
    h'      = between + down(silu(gate) * up),  gate, up of norm(between)

The reverse gives the gradients of a loss with respect to the outputs of the four linear layers
and to h, from that with respect to h'; none with respect to weights. What it needs of the inside
is computed again from h, so that between the two directions h is all that must be kept
(https://arxiv.org/abs/1604.06174).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from phiquant.host.threads import for_each, multiply
from phiquant.phi.architecture import Architecture, Role
from phiquant.phi.attention import attend
from phiquant.phi.attention_gradient import attend_backward
from phiquant.phi.linear import ROWS, multiply_by_silu, rms_norm
from phiquant.phi.rope import Rotation, rotate, rotation
from phiquant.phi.weights import Floats, WeightSource

ROLES = (
    Role.ATTENTION_NORM,
    Role.QKV,
    Role.ATTENTION_OUTPUT,
    Role.FFN_NORM,
    Role.GATE_UP,
    Role.DOWN,
)

OnGradient = Callable[[Role, Floats], None]
"""Told a linear layer and the gradient (tokens, out) with respect to its outputs."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the reverse needs of a block that `hidden` (tokens, hidden) went through.

    Queries, keys and values (tokens, heads, head_size) as they are turned, what attention left
    the stream as, and the fused gate and up (tokens, 2 * inner).
    """

    hidden: Floats
    turned: tuple[Floats, Floats, Floats]
    between: Floats
    fused: Floats


class Block:
    """A block of `source`, its weights in memory, for sequences of `length` tokens each."""

    def __init__(self, source: WeightSource, layer: int, length: int) -> None:
        self._model: Architecture = source.architecture
        names = {
            weight.role: weight.name for weight in self._model.weights() if weight.layer == layer
        }
        self._weights = {role: source.weight(names[role]) for role in ROLES}
        self._length = length
        self._turn = rotation(self._model.rope, np.arange(length), length)

    def inside(self, hidden: Floats) -> Inside:
        """Everything up to the gate, for `hidden` (tokens, hidden) of whole sequences."""
        model = self._model
        fused = self._project(Role.QKV, self._normed(Role.ATTENTION_NORM, hidden))
        turned = self._turned(fused)
        mixed = np.empty((len(hidden), model.heads * model.head_size), np.float32)
        for here in self._sequences(len(hidden)):
            queries, keys, values = (part[here] for part in turned)
            attend(queries, keys, values, model.sliding_window, mixed[here])
        between = hidden + self._project(Role.ATTENTION_OUTPUT, mixed)
        gated = self._project(Role.GATE_UP, self._normed(Role.FFN_NORM, between))
        return Inside(hidden, turned, between, gated)

    def outputs(self, inside: Inside) -> Floats:
        """What leaves the block, (tokens, hidden)."""
        inner = inside.fused.shape[1] // 2
        gated = np.empty((len(inside.fused), inner), np.float32)
        multiply_by_silu(inside.fused[:, :inner], inside.fused[:, inner:], gated)
        left = self._project(Role.DOWN, gated)
        left += inside.between
        return left

    def backward(self, inside: Inside, gradient: Floats, on_gradient: OnGradient) -> Floats:
        """The gradient with respect to what entered, from that of what left: (tokens, hidden).

        `on_gradient` is told those of the linear layers on the way.
        """
        on_gradient(Role.DOWN, gradient)
        of_fused = swiglu_backward(inside.fused, self._back(Role.DOWN, gradient))
        on_gradient(Role.GATE_UP, of_fused)
        of_normed = self._back(Role.GATE_UP, of_fused)
        del of_fused
        between = gradient + self._unnormed(Role.FFN_NORM, inside.between, of_normed)
        on_gradient(Role.ATTENTION_OUTPUT, between)
        of_qkv = self._unattended(inside, self._back(Role.ATTENTION_OUTPUT, between))
        on_gradient(Role.QKV, of_qkv)
        of_normed = self._back(Role.QKV, of_qkv)
        between += self._unnormed(Role.ATTENTION_NORM, inside.hidden, of_normed)
        return between

    def _turned(self, fused: Floats) -> tuple[Floats, Floats, Floats]:
        model, turn = self._model, self._stacked(len(fused))
        split = fused.reshape(len(fused), -1, model.head_size)
        queries, keys, values = np.split(split, [model.heads, model.heads + model.kv_heads], 1)
        return rotate(queries, turn), rotate(keys, turn), values

    def _unattended(self, inside: Inside, gradient: Floats) -> Floats:
        """The gradient with respect to the fused projection, from that of attention's outputs."""
        window = self._model.sliding_window
        turn = self._stacked(len(gradient))
        back = Rotation(turn.cos, -turn.sin)  # a turn's transpose is the turn back, scaled alike
        gradients = tuple(np.empty_like(part) for part in inside.turned)
        for here in self._sequences(len(gradient)):
            queries, keys, values = (part[here] for part in inside.turned)
            parts = attend_backward((queries, keys, values), window, gradient[here])
            for into, part in zip(gradients, parts, strict=True):
                into[here] = part
        of_queries, of_keys, of_values = gradients
        fused = [rotate(of_queries, back), rotate(of_keys, back), of_values]
        return np.concatenate(fused, axis=1).reshape(len(gradient), -1)

    def _stacked(self, tokens: int) -> Rotation:
        return self._turn.repeated(tokens // self._length)

    def _sequences(self, tokens: int) -> list[slice]:
        return [slice(at, at + self._length) for at in range(0, tokens, self._length)]

    def _project(self, role: Role, inputs: Floats) -> Floats:
        outputs = np.empty((len(inputs), len(self._weights[role])), np.float32)
        multiply(inputs, self._weights[role], outputs)
        return outputs

    def _back(self, role: Role, gradient: Floats) -> Floats:
        weight = self._weights[role]
        of_inputs = np.empty((len(gradient), weight.shape[1]), np.float32)
        multiply(gradient, weight.T, of_inputs)
        return of_inputs

    def _normed(self, role: Role, hidden: Floats) -> Floats:
        return rms_norm(hidden, self._weights[role], self._model.norm_epsilon)

    def _unnormed(self, role: Role, hidden: Floats, gradient: Floats) -> Floats:
        gains = self._weights[role]
        return rms_norm_backward(hidden, gains, self._model.norm_epsilon, gradient)


def rms_norm_backward(hidden: Floats, gains: Floats, epsilon: float, gradient: Floats) -> Floats:
    """The gradient with respect to `hidden`, from that of `rms_norm`'s output of its shape.

    With y = γ x r and r = (mean x² + ε)^(-1/2): dx = r γ dy - x r³ mean(γ dy x).
    """
    squares = np.mean(np.square(hidden), axis=-1, keepdims=True, dtype=np.float32)
    scale = 1 / np.sqrt(squares + np.float32(epsilon))
    scaled = gradient * gains
    along = np.mean(scaled * hidden, axis=-1, keepdims=True, dtype=np.float32)
    scaled -= hidden * (np.square(scale) * along)
    scaled *= scale
    return scaled


def swiglu_backward(fused: Floats, gradient: Floats) -> Floats:
    """The gradient with respect to `fused` (tokens, 2 * inner), from that of silu(gate) * up.

    With s = 1 / (1 + exp(-g)): silu(g) = g s and silu'(g) = s (1 + g (1 - s)).
    """
    inner = fused.shape[1] // 2
    of_fused = np.empty_like(fused)

    def work(first: int) -> None:
        here = slice(first, first + ROWS)
        gate, up = fused[here, :inner], fused[here, inner:]
        with np.errstate(over="ignore"):
            share = 1 / (1 + np.exp(-gate))
        silu = gate * share
        np.multiply(gradient[here], silu, out=of_fused[here, inner:])
        slope = share + silu * (1 - share)
        np.multiply(gradient[here] * up, slope, out=of_fused[here, :inner])

    for_each(range(0, len(fused), ROWS), work)
    return of_fused
