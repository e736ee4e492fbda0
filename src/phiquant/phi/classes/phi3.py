"""`Phi3ForCausalLM`: Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini and their kin.

    h += o(attention(rope(qkv(norm(h)))));  h += down(silu(gate) * up), gate and up of norm(h)

Queries, keys and values are one matrix, and so are gate and up. The names of their parts are those
that unfused checkpoints (Llama, Mistral) use.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phiquant.phi.network.parts import (
    VALUES,
    Attention,
    Block,
    GatedFeedForward,
    Linear,
    Network,
    Norm,
    Part,
    Role,
    Weight,
)

if TYPE_CHECKING:
    from phiquant.phi.architecture import Architecture

ARCHITECTURE, MODEL_TYPE = "Phi3ForCausalLM", "phi3"
"""What a configuration calls the class."""

EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"
"""Modules outside of blocks."""


def network(model: "Architecture") -> Network:
    """The network with these dimensions."""
    vocabulary = (model.vocabulary_size, model.hidden_size)
    embedding = _linear(Weight(f"{EMBEDDING}.weight", Role.EMBEDDING, None, vocabulary))
    head = _linear(Weight(f"{HEAD}.weight", Role.HEAD, None, vocabulary))
    return Network(
        embedding,
        tuple(_block(model, layer) for layer in range(model.layers)),
        Norm(
            Weight(f"{FINAL_NORM}.weight", Role.FINAL_NORM, None, (model.hidden_size,)),
            model.norm_epsilon,
        ),
        embedding if model.tied_head else head,
        model.tied_head,
    )


def _block(model: "Architecture", layer: int) -> Block:
    hidden, inner = model.hidden_size, model.intermediate_size
    values = model.kv_heads * model.head_size
    queries = model.heads * model.head_size
    at = f"model.layers.{layer}"

    def weight(name: str, role: Role, *shape: int) -> Weight:
        return Weight(f"{at}.{name}.weight", role, layer, shape)

    def norm(name: str, role: Role) -> Norm:
        return Norm(weight(name, role, hidden), model.norm_epsilon)

    def fused(name: str, role: Role, parts: Sequence[tuple[str, int]]) -> Linear:
        rows = sum(count for _, count in parts)
        return _fused(weight(name, role, rows, hidden), name.rpartition(".")[2], parts)

    return Block(
        norm("input_layernorm", Role.ATTENTION_NORM),
        Attention(
            fused(
                "self_attn.qkv_proj",
                Role.QKV,
                (("q_proj", queries), ("k_proj", values), (VALUES, values)),
            ),
            _linear(weight("self_attn.o_proj", Role.ATTENTION_OUTPUT, hidden, queries)),
            model.heads,
            model.kv_heads,
            model.head_size,
            model.rope,
            model.sliding_window,
        ),
        norm("post_attention_layernorm", Role.FFN_NORM),
        GatedFeedForward(
            fused("mlp.gate_up_proj", Role.GATE_UP, (("gate_proj", inner), ("up_proj", inner))),
            _linear(weight("mlp.down_proj", Role.DOWN, hidden, inner)),
        ),
    )


def _linear(weight: Weight) -> Linear:
    return Linear(weight, (Part(weight.name, weight, 0, weight.shape[0]),))


def _fused(weight: Weight, word: str, rows: Sequence[tuple[str, int]]) -> Linear:
    """The weight and its parts: `rows` has the word that takes the place of `word`, and how many
    rows are called so.
    """
    parts, first = [], 0
    for name, count in rows:
        parts.append(Part(weight.name.replace(word, name), weight, first, count))
        first += count
    return Linear(weight, tuple(parts))
