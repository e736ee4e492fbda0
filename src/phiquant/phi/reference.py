"""The forward pass of a network in float32 NumPy: the ground truth for every figure.

It runs over any `WeightSource`: a checkpoint, or an artifact's decoded weights. The network is
that of the source (`network.parts`). It follows transformers' and is tested against it to 1e-4 in
the logits.

Many windows of text go through a layer together: their tokens are stacked into one matrix for
everything but attention, so each weight is read and decoded once for all of them, and one band
of one weight is in memory at a time.

LongRoPE and the cache: the factors hold for the whole sequence (see `rope.py`), so when a
cached sequence grows past `original_positions`, every hidden state changes. `extend` then
computes the sequence anew from its tokens. transformers does so too, but only in `generate`; its
plain forward with a cache goes on with keys that were turned by the short factors. Here, logits
of a step are always those of a full pass over the sequence up to that step.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from phiquant.errors import InputError
from phiquant.phi.network.attention import attend
from phiquant.phi.network.linear import embed, gated, project
from phiquant.phi.network.norm import rms_norm
from phiquant.phi.network.parts import Attention, Norm
from phiquant.phi.network.rope import Rotation, uses_long_factors
from phiquant.phi.network.stack import Heads, Stack, mixed, stacked, turned
from phiquant.phi.weights import Floats, Resident, Tokens, WeightSource

Observe = Callable[[str, Floats], None]
"""Called with a matrix's name and its inputs (tokens, in), before they are multiplied by it."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """A sequence's tokens, and each layer's turned keys and values (tokens, kv_heads, head)."""

    tokens: Tokens
    keys: tuple[Floats, ...]
    values: tuple[Floats, ...]


class Reference:
    """The reference forward pass over the weights of `source`.

    With `resident`, every weight is kept in float32 after its first use: four bytes a weight of
    memory for speed, right for small models and for decoding step by step. `observe` is told
    the inputs of every matrix but the embedding.
    """

    def __init__(
        self, source: WeightSource, resident: bool = False, observe: Observe | None = None
    ) -> None:
        self._source: WeightSource = Resident(source) if resident else source
        self._observe = observe or (lambda name, inputs: None)
        self.architecture = source.architecture
        self._network = source.architecture.network

    def logits(self, tokens: Tokens) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty cache."""
        (hidden,) = self.hidden_states([tokens])
        return self.head(hidden)

    def hidden_states(self, windows: Sequence[Tokens]) -> list[Floats]:
        """The head's inputs, (tokens, hidden) a window; each window is a sequence of its own.

        Reads every weight once for all windows together.
        """
        if not windows:
            return []
        hidden, stack = self.embedded(windows)
        for layer in range(self.architecture.layers):
            self.layer(layer, hidden, stack)
        hidden = self.normed(hidden)
        return [hidden[a:b] for a, b in stack.spans]

    def embedded(self, windows: Sequence[Tokens]) -> tuple[Floats, Stack]:
        """What enters the first layer, (tokens of all windows, hidden), and where each lies."""
        checked = [self._checked(window) for window in windows]
        stack = stacked(self._network.rope, [(0, len(window)) for window in checked])
        return embed(self._source, np.concatenate(checked)), stack

    def layer(self, layer: int, hidden: Floats, stack: Stack) -> None:
        """Turn what enters a layer into what leaves it, in place."""
        self._through(layer, hidden, stack.rotation, lambda part, heads: mixed(part, heads, stack))

    def normed(self, hidden: Floats) -> Floats:
        """The final norm of what leaves the last layer: the head's inputs."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._normed(self._network.norm, hidden)

    def head(self, hidden: Floats) -> Floats:
        """Logits (tokens, vocabulary) of `hidden_states`' output, in bands of the vocabulary."""
        head = self._network.head
        self._observe(head.weight.name, hidden)
        with np.errstate(over="ignore", invalid="ignore"):
            return project(self._source, head, hidden)

    def extend(self, tokens: Tokens, cache: KVCache | None = None) -> tuple[Floats, KVCache]:
        """Logits (tokens, vocabulary) of `tokens` after a cached sequence, and the new cache.

        They equal the last rows of `logits` over the whole sequence. Where it crosses
        LongRoPE's boundary, the whole of it is computed anew.
        """
        tokens = self._checked(tokens)
        if cache is None:
            hidden, cache = self._extended(tokens, self._empty())
            return self.head(hidden), cache
        before, after = len(cache.tokens), len(cache.tokens) + len(tokens)
        rope = self.architecture.rope
        if uses_long_factors(rope, before) != uses_long_factors(rope, after):
            sequence = np.concatenate([cache.tokens, tokens])
            hidden, cache = self._extended(sequence, self._empty())
        else:
            hidden, cache = self._extended(tokens, cache)
        return self.head(hidden[-len(tokens) :]), cache

    def generate(
        self, prompt: Tokens, limit: int, stops: frozenset[int] = frozenset()
    ) -> list[int]:
        """Continue `prompt` greedily by at most `limit` tokens; a stop token ends it, included."""
        return list(self._steps(prompt, limit, stops))

    def _steps(self, prompt: Tokens, limit: int, stops: frozenset[int]) -> Iterator[int]:
        tokens, cache = prompt, None
        for _ in range(limit):
            logits, cache = self.extend(tokens, cache)
            token = int(logits[-1].argmax())
            yield token
            if token in stops:
                return
            tokens = np.array([token], np.int32)

    def _extended(self, tokens: Tokens, cache: KVCache) -> tuple[Floats, KVCache]:
        before = len(cache.tokens)
        stack = stacked(self._network.rope, [(before, before + len(tokens))])
        hidden = embed(self._source, tokens)
        all_keys: list[Floats] = []
        all_values: list[Floats] = []

        def attend_to_all(part: Attention, heads: Heads) -> Floats:
            layer = len(all_keys)
            all_keys.append(np.concatenate([cache.keys[layer], heads[1]]))
            all_values.append(np.concatenate([cache.values[layer], heads[2]]))
            return attend(heads[0], all_keys[layer], all_values[layer], part.window)

        for layer in range(self.architecture.layers):
            self._through(layer, hidden, stack.rotation, attend_to_all)
        sequence = np.concatenate([cache.tokens, tokens])
        return self.normed(hidden), KVCache(sequence, tuple(all_keys), tuple(all_values))

    def _empty(self) -> KVCache:
        model = self.architecture
        nothing = np.empty((0, model.kv_heads, model.head_size), np.float32)
        parts = (nothing,) * model.layers
        return KVCache(np.empty(0, np.int32), parts, parts)

    def _through(
        self,
        layer: int,
        hidden: Floats,
        turn: Rotation,
        attended: Callable[[Attention, Heads], Floats],
    ) -> None:
        """Take `hidden` through a block, in place; `attended` gives what attention leaves."""
        left = hidden
        with np.errstate(over="ignore", invalid="ignore"):
            for step in self._network.blocks[layer].steps:
                inputs = left if step.norm is None else self._normed(step.norm, hidden)
                self._observe(step.linear.weight.name, inputs)
                if step.then is None:
                    hidden += project(self._source, step.linear, inputs)
                elif isinstance(step.then, Attention):
                    fused = project(self._source, step.linear, inputs)
                    del inputs
                    left = attended(step.then, turned(step.then, fused, turn))
                else:
                    left = gated(self._source, step.linear, inputs)

    def _normed(self, norm: Norm, hidden: Floats) -> Floats:
        return rms_norm(hidden, self._source.weight(norm.gains.name), norm.epsilon)

    def _checked(self, tokens: Tokens) -> Tokens:
        tokens = np.asarray(tokens, np.int32)
        size = self.architecture.vocabulary_size
        if tokens.ndim != 1 or not len(tokens):
            raise InputError(
                f"A sequence must be one row of at least one token id; it has shape {tokens.shape}."
            )
        if tokens.min() < 0 or tokens.max() >= size:
            wrong = int(tokens.min() if tokens.min() < 0 else tokens.max())
            raise InputError(
                f"Token id {wrong} is outside of the vocabulary of {size}; use the tokenizer "
                f"that belongs to the model."
            )
        return tokens
