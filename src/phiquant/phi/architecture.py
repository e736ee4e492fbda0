"""What a Phi model is: its dimensions, its rotary embedding, and the weights it must have.

Values only. `config.py` reads them from a checkpoint's configuration, `checkpoint.py` checks
the tensors on disk against them, and every later step works from them alone.
"""

from dataclasses import dataclass
from enum import StrEnum

ARCHITECTURE = "Phi3ForCausalLM"
"""The one architecture class covered: Phi-3, Phi-3.5-mini, Phi-4, Phi-4-mini and their kin."""


class Role(StrEnum):
    """What a weight does in the network; the word that plans and mixtures are written in."""

    EMBEDDING = "embedding"
    ATTENTION_NORM = "attention_norm"
    QKV = "qkv"
    ATTENTION_OUTPUT = "attention_output"
    FFN_NORM = "ffn_norm"
    GATE_UP = "gate_up"
    DOWN = "down"
    FINAL_NORM = "final_norm"
    HEAD = "head"

    @property
    def is_norm(self) -> bool:
        """Whether the weight is a vector of RMSNorm gains, which no format quantizes."""
        return self in (Role.ATTENTION_NORM, Role.FFN_NORM, Role.FINAL_NORM)


@dataclass(frozen=True, slots=True)
class LongRope:
    """LongRoPE: two lists of factors that stretch the rotary wavelengths.

    The short factors hold while the whole sequence has at most `original_positions` tokens, the
    long ones beyond. cos and sin are multiplied by `attention_factor` either way.
    Each list has `Rope.dimensions / 2` entries. Source: https://arxiv.org/abs/2402.13753.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_positions: int
    attention_factor: float


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding over the first `dimensions` of each head (NeoX halves)."""

    theta: float
    dimensions: int
    long: LongRope | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight that the architecture requires: its checkpoint name and (out, in) shape."""

    name: str
    role: Role
    layer: int | None
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Architecture:
    """The dimensions of one Phi-3 style decoder."""

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocabulary_size: int
    norm_epsilon: float
    tied_head: bool
    max_positions: int
    sliding_window: int | None
    rope: Rope

    @property
    def qkv_rows(self) -> int:
        """Rows of the fused projection: queries, then keys, then values."""
        return (self.heads + 2 * self.kv_heads) * self.head_size

    @property
    def head_name(self) -> str:
        """The weight that gives the logits: a head of its own, or the embedding."""
        return "model.embed_tokens.weight" if self.tied_head else "lm_head.weight"

    def weights(self) -> tuple[Weight, ...]:
        """All weights that the model has, in network order."""
        hidden, inner = self.hidden_size, self.intermediate_size
        vocabulary = (self.vocabulary_size, hidden)
        rows = [Weight("model.embed_tokens.weight", Role.EMBEDDING, None, vocabulary)]
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            attention = self.heads * self.head_size
            rows += [
                Weight(f"{at}.input_layernorm.weight", Role.ATTENTION_NORM, layer, (hidden,)),
                Weight(f"{at}.self_attn.qkv_proj.weight", Role.QKV, layer, (self.qkv_rows, hidden)),
                Weight(
                    f"{at}.self_attn.o_proj.weight",
                    Role.ATTENTION_OUTPUT,
                    layer,
                    (hidden, attention),
                ),
                Weight(f"{at}.post_attention_layernorm.weight", Role.FFN_NORM, layer, (hidden,)),
                Weight(f"{at}.mlp.gate_up_proj.weight", Role.GATE_UP, layer, (2 * inner, hidden)),
                Weight(f"{at}.mlp.down_proj.weight", Role.DOWN, layer, (hidden, inner)),
            ]
        rows.append(Weight("model.norm.weight", Role.FINAL_NORM, None, (hidden,)))
        if not self.tied_head:
            rows.append(Weight("lm_head.weight", Role.HEAD, None, vocabulary))
        return tuple(rows)
