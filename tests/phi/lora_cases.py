"""Adapters with a feature of their own each; `golden/make_adapters.py` makes them with PEFT."""

from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_act": "silu",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 64,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "attention_dropout": 0.0,
}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
LINEAR = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


@dataclass(frozen=True)
class Case:
    """LoraConfig's `settings` over a base that differs from SMALL by `changes`.

    `vocabulary` is the size that the embedding is brought to first; with `half` the adapter is
    stored in BF16.
    """

    settings: dict[str, Any]
    changes: dict[str, Any]
    vocabulary: int | None = None
    half: bool = False


CASES = {
    "fused": Case({"r": 4, "lora_alpha": 16, "target_modules": LINEAR}, {}),
    "apart": Case(
        {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj", "up_proj"]},
        {**LLAMA, "tie_word_embeddings": True},
    ),
    "rank-stabilised": Case(
        {"r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": "all-linear"}, {}, half=True
    ),
    "patterns": Case(
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["qkv_proj", "down_proj"],
            "rank_pattern": {"down_proj": 2, "layers.0.self_attn.qkv_proj": 6},
            "alpha_pattern": {"^model.layers.1.mlp.down_proj": 32, "qkv_proj": 3},
        },
        {},
    ),
    "saved": Case(
        {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["o_proj"],
            "modules_to_save": ["lm_head", "norm"],
        },
        {},
    ),
    "embedding": Case({"r": 2, "lora_alpha": 4, "target_modules": ["embed_tokens", "o_proj"]}, {}),
    "resized": Case({"r": 2, "lora_alpha": 4, "target_modules": ["o_proj"]}, {}, vocabulary=48),
    "untied": Case(
        {
            "r": 2,
            "lora_alpha": 4,
            "target_modules": ["o_proj"],
            "modules_to_save": ["embed_tokens"],
        },
        {"tie_word_embeddings": True},
    ),
}


def base_of(case: Case) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The base's configuration, and its weights by the names under which its class stores them."""
    from phiquant.phi.config import model_class, read_architecture
    from phiquant.phi.stored_weight import stored_shapes

    config = SMALL | case.changes
    name, said = model_class(dict(config))
    random = np.random.default_rng(11)
    weights = {}
    network = read_architecture(said).network
    for key, shape in stored_shapes(network, apart=name is not None).items():
        values = random.normal(0, 0.3, shape) if len(shape) > 1 else random.uniform(0.5, 1.5, shape)
        # Numbers that BF16 holds, so that a base in it is the same base.
        weights[key] = (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)
    return config, weights
