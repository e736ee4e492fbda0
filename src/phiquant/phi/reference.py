"""The forward pass of Phi3ForCausalLM in float32 NumPy: the ground truth for every figure.

It runs over any `WeightSource`: a checkpoint, or an artifact's decoded weights. Network, per
layer: h += o(attention(qkv(norm(h)))); h += down(silu(gate) * up) with gate, up of norm(h).
It follows transformers' `Phi3ForCausalLM` and is tested against it to 1e-4 in the logits.

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
from itertools import pairwise

import numpy as np

from phiquant.errors import InputError
from phiquant.phi.attention import attend
from phiquant.phi.linear import embed, gated, project, rms_norm
from phiquant.phi.rope import Rotation, rotate, rotation, uses_long_factors
from phiquant.phi.weights import Floats, Resident, Tokens, WeightSource

Observe = Callable[[str, Floats], None]
"""Called with a matrix's name and its inputs (tokens, in), before they are multiplied by it."""


@dataclass(frozen=True, slots=True)
class KVCache:
    """A sequence's tokens, and each layer's turned keys and values (tokens, kv_heads, head)."""

    tokens: Tokens
    keys: tuple[Floats, ...]
    values: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """Windows stacked along the token axis: where each lies, and how its tokens are turned."""

    spans: tuple[tuple[int, int], ...]
    rotation: Rotation

    @property
    def tokens(self) -> int:
        """Tokens of all windows."""
        return self.spans[-1][1]

    def repeated(self, times: int) -> "Stack":
        """The same windows several times, one after another."""
        starts = [copy * self.tokens for copy in range(times)]
        spans = tuple((at + a, at + b) for at in starts for a, b in self.spans)
        return Stack(spans, self.rotation.repeated(times))


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
        stack = self._stack([(0, len(window)) for window in checked])
        return embed(self._source, np.concatenate(checked)), stack

    def layer(self, layer: int, hidden: Floats, stack: Stack) -> None:
        """Turn what enters a layer into what leaves it, in place."""
        with np.errstate(over="ignore", invalid="ignore"):
            queries, keys, values = self._turned(layer, hidden, stack.rotation)
            mixed = np.concatenate(
                [self._attend(queries[a:b], keys[a:b], values[a:b]) for a, b in stack.spans]
            )
            del queries, keys, values
            self._finish(layer, hidden, mixed)

    def normed(self, hidden: Floats) -> Floats:
        """The final norm of what leaves the last layer: the head's inputs."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self._normed("model.norm.weight", hidden)

    def head(self, hidden: Floats) -> Floats:
        """Logits (tokens, vocabulary) of `hidden_states`' output, in bands of the vocabulary."""
        name = self.architecture.head_name
        self._observe(name, hidden)
        with np.errstate(over="ignore", invalid="ignore"):
            return project(self._source, name, hidden, self.architecture.vocabulary_size)

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
        stack = self._stack([(before, before + len(tokens))])
        hidden = embed(self._source, tokens)
        all_keys, all_values = [], []
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in range(self.architecture.layers):
                queries, keys, values = self._turned(layer, hidden, stack.rotation)
                keys = np.concatenate([cache.keys[layer], keys])
                values = np.concatenate([cache.values[layer], values])
                all_keys.append(keys)
                all_values.append(values)
                self._finish(layer, hidden, self._attend(queries, keys, values))
            hidden = self._normed("model.norm.weight", hidden)
        sequence = np.concatenate([cache.tokens, tokens])
        return hidden, KVCache(sequence, tuple(all_keys), tuple(all_values))

    def _empty(self) -> KVCache:
        model = self.architecture
        nothing = np.empty((0, model.kv_heads, model.head_size), np.float32)
        parts = (nothing,) * model.layers
        return KVCache(np.empty(0, np.int32), parts, parts)

    def _stack(self, ranges: Sequence[tuple[int, int]]) -> Stack:
        """Stack the position `ranges` of sequences, each of which ends where its range ends."""
        rope = self.architecture.rope
        turns = [rotation(rope, np.arange(first, last), last) for first, last in ranges]
        edges = np.cumsum([0, *(last - first for first, last in ranges)]).tolist()
        whole = Rotation(
            np.concatenate([turn.cos for turn in turns]),
            np.concatenate([turn.sin for turn in turns]),
        )
        return Stack(tuple(pairwise(edges)), whole)

    def _turned(self, layer: int, hidden: Floats, turn: Rotation) -> tuple[Floats, Floats, Floats]:
        """A layer's turned queries and keys, and its values: (tokens, heads, head_size) each."""
        model, at = self.architecture, f"model.layers.{layer}"
        normed = self._normed(f"{at}.input_layernorm.weight", hidden)
        fused = self._project(f"{at}.self_attn.qkv_proj.weight", normed, model.qkv_rows)
        split = fused.reshape(len(fused), -1, model.head_size)
        queries, keys, values = np.split(split, [model.heads, model.heads + model.kv_heads], 1)
        return rotate(queries, turn), rotate(keys, turn), values

    def _attend(self, queries: Floats, keys: Floats, values: Floats) -> Floats:
        return attend(queries, keys, values, self.architecture.sliding_window)

    def _finish(self, layer: int, hidden: Floats, mixed: Floats) -> None:
        """Add attention's output and the feed-forward network's to `hidden`, in place."""
        model, at = self.architecture, f"model.layers.{layer}"
        hidden += self._project(f"{at}.self_attn.o_proj.weight", mixed, model.hidden_size)
        normed = self._normed(f"{at}.post_attention_layernorm.weight", hidden)
        name = f"{at}.mlp.gate_up_proj.weight"
        self._observe(name, normed)
        inner = gated(self._source, name, normed, model.intermediate_size)
        hidden += self._project(f"{at}.mlp.down_proj.weight", inner, model.hidden_size)

    def _project(self, name: str, inputs: Floats, rows: int) -> Floats:
        self._observe(name, inputs)
        return project(self._source, name, inputs, rows)

    def _normed(self, name: str, hidden: Floats) -> Floats:
        return rms_norm(hidden, self._source.weight(name), self.architecture.norm_epsilon)

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
