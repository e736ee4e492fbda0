"""Tiny random Phi-3 checkpoints on disk, with NumPy and safetensors alone."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from phiquant.phi.config import read_architecture


def tiny_config(**changes):
    """A published-style config of a small model; `changes` replace or add fields."""
    config = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "max_position_embeddings": 256,
        "original_max_position_embeddings": 256,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "partial_rotary_factor": 1.0,
        "sliding_window": None,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "torch_dtype": "bfloat16",
    }
    return config | changes


def longrope(dimensions, original=64, maximum=256, seed=5):
    """The config fields that turn on LongRoPE over `dimensions` rotary dimensions."""
    random = np.random.default_rng(seed)
    half = dimensions // 2
    return {
        "max_position_embeddings": maximum,
        "original_max_position_embeddings": original,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [round(x, 3) for x in np.sort(random.uniform(1, 1.5, half))],
            "long_factor": [round(x, 3) for x in np.sort(random.uniform(1, 20, half))],
        },
    }


def tiny_weights(config, seed=0):
    """Random float32 weights by checkpoint name: a network whose logits vary by some units."""
    random = np.random.default_rng(seed)
    weights = {}
    for weight in read_architecture(config).weights():
        if weight.role.is_norm:
            values = random.lognormal(0.0, 0.2, weight.shape)
        else:
            scale = 1.0 if weight.role == "embedding" else weight.shape[1] ** -0.5
            values = random.normal(0, scale, weight.shape)
        weights[weight.name] = values.astype(np.float32)
    return weights


def to_bf16_bits(values):
    """Round float32 to BF16 (to nearest, ties to even), as uint16 bits."""
    bits = values.view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)


def write_safetensors(path, weights, dtype="BF16"):
    """A safetensors file of float32 `weights`, stored as `dtype`."""
    if dtype == "F32":
        save_file(weights, path)
    elif dtype == "F16":
        save_file({name: values.astype(np.float16) for name, values in weights.items()}, path)
    else:
        entries, blobs, offset = {}, [], 0
        for name, values in weights.items():
            blob = to_bf16_bits(np.ascontiguousarray(values, np.float32)).tobytes()
            entries[name] = {
                "dtype": "BF16",
                "shape": list(values.shape),
                "data_offsets": [offset, offset + len(blob)],
            }
            blobs.append(blob)
            offset += len(blob)
        header = json.dumps(entries).encode()
        header += b" " * (-len(header) % 8)
        Path(path).write_bytes(len(header).to_bytes(8, "little") + header + b"".join(blobs))


def write_tiny_checkpoint(directory, *, dtype="BF16", shards=1, seed=0, weights=None, **changes):
    """A checkpoint directory without a tokenizer; returns the directory.

    `changes` go into the config; `weights` replaces the random ones.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = tiny_config(**changes)
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    weights = tiny_weights(config, seed) if weights is None else weights
    if shards == 1:
        write_safetensors(directory / "model.safetensors", weights, dtype)
        return directory
    names = list(weights)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard * len(names) // shards : (shard + 1) * len(names) // shards]
        write_safetensors(directory / file, {name: weights[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    return directory


class InMemory:
    """Weights in a dictionary, as the reference reads them."""

    def __init__(self, architecture, weights):
        self.architecture = architecture
        self.weights = weights

    def weight(self, name, first=0, last=None):
        return self.weights[name][first:last]
