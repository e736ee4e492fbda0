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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from phiquant.errors import InputError
from phiquant.phi.attention import attend
from phiquant.phi.linear import embed, gated, project, rms_norm
from phiquant.phi.rope import Rotation, rotate, rotation, uses_long_factors
from phiquant.phi.weights import Floats, Resident, WeightSource

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class KVCache:
    """A sequence's tokens, and each layer's turned keys and values (tokens, kv_heads, head)."""

    tokens: Tokens
    keys: tuple[Floats, ...]
    values: tuple[Floats, ...]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Windows stacked along the token axis: where each lies, and how its tokens are turned."""

    spans: tuple[tuple[int, int], ...]
    rotation: Rotation


class Reference:
    """The reference forward pass over the weights of `source`.

    With `resident`, every weight is kept in float32 after its first use: four bytes a weight of
    memory for speed, right for small models and for decoding step by step.
    """

    def __init__(self, source: WeightSource, resident: bool = False) -> None:
        self._source: WeightSource = Resident(source) if resident else source
        self.architecture = source.architecture

    def logits(self, tokens: Tokens) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty cache."""
        (hidden,) = self.hidden_states([tokens])
        return self.head(hidden)

    def hidden_states(self, windows: Sequence[Tokens]) -> list[Floats]:
        """The head's inputs, (tokens, hidden) a window; each window is a sequence of its own.

        Reads every weight once for all windows together.
        """
        checked = [self._checked(window) for window in windows]
        if not checked:
            return []
        stack = self._stack([(0, len(window)) for window in checked])
        hidden = embed(self._source, np.concatenate(checked))
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in range(self.architecture.layers):
                queries, keys, values = self._turned(layer, hidden, stack.rotation)
                mixed = np.concatenate(
                    [self._attend(queries[a:b], keys[a:b], values[a:b]) for a, b in stack.spans]
                )
                del queries, keys, values
                self._finish(layer, hidden, mixed)
            hidden = self._normed("model.norm.weight", hidden)
        return [hidden[a:b] for a, b in stack.spans]

    def head(self, hidden: Floats) -> Floats:
        """Logits (tokens, vocabulary) of `hidden_states`' output, in bands of the vocabulary."""
        name = "model.embed_tokens.weight" if self.architecture.tied_head else "lm_head.weight"
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

    def _stack(self, ranges: Sequence[tuple[int, int]]) -> _Stack:
        """Stack the position `ranges` of sequences, each of which ends where its range ends."""
        rope = self.architecture.rope
        turns = [rotation(rope, np.arange(first, last), last) for first, last in ranges]
        edges = np.cumsum([0, *(last - first for first, last in ranges)]).tolist()
        whole = Rotation(
            np.concatenate([turn.cos for turn in turns]),
            np.concatenate([turn.sin for turn in turns]),
        )
        return _Stack(tuple(pairwise(edges)), whole)

    def _turned(self, layer: int, hidden: Floats, turn: Rotation) -> tuple[Floats, Floats, Floats]:
        """A layer's turned queries and keys, and its values: (tokens, heads, head_size) each."""
        model, at = self.architecture, f"model.layers.{layer}"
        normed = self._normed(f"{at}.input_layernorm.weight", hidden)
        fused = project(self._source, f"{at}.self_attn.qkv_proj.weight", normed, model.qkv_rows)
        split = fused.reshape(len(fused), -1, model.head_size)
        queries, keys, values = np.split(split, [model.heads, model.heads + model.kv_heads], 1)
        return rotate(queries, turn), rotate(keys, turn), values

    def _attend(self, queries: Floats, keys: Floats, values: Floats) -> Floats:
        return attend(queries, keys, values, self.architecture.sliding_window)

    def _finish(self, layer: int, hidden: Floats, mixed: Floats) -> None:
        """Add attention's output and the feed-forward network's to `hidden`, in place."""
        model, at = self.architecture, f"model.layers.{layer}"
        source, size = self._source, model.hidden_size
        hidden += project(source, f"{at}.self_attn.o_proj.weight", mixed, size)
        normed = self._normed(f"{at}.post_attention_layernorm.weight", hidden)
        inner = gated(source, f"{at}.mlp.gate_up_proj.weight", normed, model.intermediate_size)
        hidden += project(source, f"{at}.mlp.down_proj.weight", inner, size)

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
