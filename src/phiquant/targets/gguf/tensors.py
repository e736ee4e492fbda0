"""The two names of every tensor: the checkpoint's and llama.cpp's.

llama.cpp stores a Phi-3 network as it is, `qkv_proj` and `gate_up_proj` fused; the fused gate and
up projection goes by the name `ffn_up`. Nothing is permuted: the rotary halves are NeoX's in both.
"""

import re

from phiquant.phi.network.parts import Role, Weight

WHOLE_MODEL = {
    Role.EMBEDDING: "token_embd.weight",
    Role.FINAL_NORM: "output_norm.weight",
    Role.HEAD: "output.weight",
}

PER_LAYER = {
    Role.ATTENTION_NORM: "attn_norm.weight",
    Role.QKV: "attn_qkv.weight",
    Role.ATTENTION_OUTPUT: "attn_output.weight",
    Role.FFN_NORM: "ffn_norm.weight",
    Role.GATE_UP: "ffn_up.weight",
    Role.DOWN: "ffn_down.weight",
}

LONG_FACTORS = "rope_factors_long.weight"
SHORT_FACTORS = "rope_factors_short.weight"

CHECKPOINT_PER_LAYER = {
    "input_layernorm.weight": Role.ATTENTION_NORM,
    "self_attn.qkv_proj.weight": Role.QKV,
    "self_attn.o_proj.weight": Role.ATTENTION_OUTPUT,
    "post_attention_layernorm.weight": Role.FFN_NORM,
    "mlp.gate_up_proj.weight": Role.GATE_UP,
    "mlp.down_proj.weight": Role.DOWN,
}

CHECKPOINT_WHOLE_MODEL = {
    "model.embed_tokens.weight": Role.EMBEDDING,
    "model.norm.weight": Role.FINAL_NORM,
    "lm_head.weight": Role.HEAD,
}

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def tensor_name(weight: Weight) -> str:
    """llama.cpp's name for a weight of the architecture."""
    return _name(weight.role, weight.layer)


def tensor_name_of(checkpoint_name: str) -> str | None:
    """llama.cpp's name for the checkpoint's weight of that name; None if Phi-3 has no such."""
    if checkpoint_name in CHECKPOINT_WHOLE_MODEL:
        return _name(CHECKPOINT_WHOLE_MODEL[checkpoint_name], None)
    match = _LAYER.fullmatch(checkpoint_name)
    if match is None or match[2] not in CHECKPOINT_PER_LAYER:
        return None
    return _name(CHECKPOINT_PER_LAYER[match[2]], int(match[1]))


def _name(role: Role, layer: int | None) -> str:
    if layer is None:
        return WHOLE_MODEL[role]
    return f"blk.{layer}.{PER_LAYER[role]}"
