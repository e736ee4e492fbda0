"""Tiny Phi-3 models that cover every feature of the architecture, made of nothing but a formula.

The weights come from SplitMix64 (https://prng.di.unimi.it/splitmix64.c), written out here, so
that the goldens hold only configurations, tokens and logits. `golden/make_goldens.py` gives the
same weights to transformers.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role

SMALL: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_act": "silu",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 97,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "max_position_embeddings": 128,
    "original_max_position_embeddings": 128,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def longrope(pairs: int) -> dict[str, Any]:
    """A rope_scaling entry whose factor lists differ from pair to pair and from each other."""
    return {
        "type": "longrope",
        "short_factor": [1.0 + 0.05 * i for i in range(pairs)],
        "long_factor": [1.5 + 0.75 * i for i in range(pairs)],
    }


@dataclass(frozen=True)
class Case:
    """A configuration in the classic schema, and the lengths of the sequences run through it.

    `keep` bounds the rows of logits that the golden holds: the last ones.
    """

    config: dict[str, Any]
    lengths: tuple[int, ...]
    keep: int = 64


CASES = {
    "full_heads": Case(SMALL, (1, 23)),
    "grouped_tied": Case(
        SMALL
        | {
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "tie_word_embeddings": True,
            "rope_theta": 250000.0,
            "vocab_size": 131,
        },
        (40,),
    ),
    "one_kv_head": Case(SMALL | {"num_key_value_heads": 1, "rms_norm_eps": 1e-6}, (19,)),
    "own_head_size": Case(SMALL | {"head_dim": 20, "num_key_value_heads": 2}, (25,)),
    "partial_rotary": Case(
        SMALL | {"num_attention_heads": 3, "num_key_value_heads": 3, "partial_rotary_factor": 0.75},
        (30,),
    ),
    "sliding_window": Case(SMALL | {"sliding_window": 7}, (6, 7, 8, 50)),
    "longrope": Case(
        SMALL
        | {
            "num_key_value_heads": 2,
            "rope_scaling": longrope(6),
            "original_max_position_embeddings": 32,
        },
        (31, 32, 33, 100),
    ),
    "longrope_partial": Case(
        SMALL
        | {
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "partial_rotary_factor": 0.75,
            "rope_scaling": longrope(6),
            "original_max_position_embeddings": 32,
            "sliding_window": 24,
            "tie_word_embeddings": True,
        },
        (32, 33, 90),
    ),
    "longrope_4096": Case(
        SMALL
        | {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "partial_rotary_factor": 0.75,
            "rope_scaling": longrope(6),
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
        },
        (4096, 4097),
        keep=6,
    ),
}


def tokens_of(case: str, length: int) -> np.ndarray:
    """The token ids of a case's sequence of `length`."""
    draws = _splitmix(_seed(f"{case} tokens {length}"), length)
    return (draws % CASES[case].config["vocab_size"]).astype(np.int32)


class FormulaWeights:
    """The weights of an architecture, each from the formula and its own name."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._weights = {weight.name: weight for weight in architecture.weights()}

    @property
    def architecture(self) -> Architecture:
        return self._architecture

    def weight(self, name: str, first: int = 0, last: int | None = None) -> np.ndarray:
        """Uniform values: gains about 1, the rest scaled by the square root of the row length."""
        weight = self._weights[name]
        count = int(np.prod(weight.shape))
        # 24 random bits, centred: exact in float32.
        draws = (_splitmix(_seed(name), count) >> np.uint64(40)).astype(np.float32)
        uniform = (draws - 2.0**23) / np.float32(2.0**23)
        if weight.role.is_norm:
            return (1 + 0.5 * uniform)[first:last]
        scale = 1.0 if weight.role is Role.EMBEDDING else 3.0 / weight.shape[-1] ** 0.5
        return (np.float32(scale) * uniform).reshape(weight.shape)[first:last]

    def checksum(self) -> str:
        """SHA-256 over all weights in network order."""
        digest = hashlib.sha256()
        for name in self._weights:
            digest.update(self.weight(name).tobytes())
        return digest.hexdigest()


def _seed(text: str) -> int:
    return zlib.crc32(text.encode())


def _splitmix(seed: int, count: int) -> np.ndarray:
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
