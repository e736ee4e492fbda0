"""Models of random weights beside the demo model, for benchmarks that depend on shapes alone."""

import json
import shutil
from pathlib import Path

import numpy as np
from checkpoints import SEED, random_pool, write_json, write_shard

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Rope

UNTIED = Architecture(
    hidden_size=1536,
    layers=8,
    heads=12,
    kv_heads=4,
    head_size=128,
    intermediate_size=4096,
    vocabulary_size=65536,
    norm_epsilon=1e-5,
    tied_head=False,
    max_positions=8192,
    sliding_window=None,
    rope=Rope(theta=10000.0, dimensions=128),
)
"""0.4 billion weights; wider and shallower than the demo model, grouped heads."""

MANY_HEADS = Architecture(
    hidden_size=1024,
    layers=20,
    heads=16,
    kv_heads=16,
    head_size=64,
    intermediate_size=2816,
    vocabulary_size=32064,
    norm_epsilon=1e-5,
    tied_head=True,
    max_positions=8192,
    sliding_window=None,
    rope=Rope(theta=10000.0, dimensions=64),
)
"""0.3 billion weights; keys and values for every head and Phi-3-mini's number of rows."""

SPARE_ROWS = 64
"""Rows of the embedding that have no token, where the vocabulary had to be cut."""


def random_model(architecture: Architecture, demo: Path, directory: Path) -> Path:
    """The checkpoint in BF16 with the demo model's tokenizer, written once."""
    if directory.exists():
        return directory
    directory.mkdir(parents=True)
    for name in ("generation_config.json", "tokenizer_config.json"):
        shutil.copy(demo / name, directory)
    document = json.loads((demo / "tokenizer.json").read_text(encoding="utf-8"))
    cut_vocabulary(document, architecture.vocabulary_size)
    write_json(directory / "tokenizer.json", document)
    config = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    write_json(directory / "config.json", config | changed(architecture))
    generator = np.random.default_rng(SEED)
    weights = sorted(architecture.weights(), key=lambda weight: weight.name)
    write_shard(directory / "model.safetensors", weights, random_pool(generator), generator)
    return directory


def changed(architecture: Architecture) -> dict[str, object]:
    """The entries of config.json that say so."""
    return {
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "num_key_value_heads": architecture.kv_heads,
        "intermediate_size": architecture.intermediate_size,
        "vocab_size": architecture.vocabulary_size,
        "tie_word_embeddings": architecture.tied_head,
        "max_position_embeddings": architecture.max_positions,
        "original_max_position_embeddings": architecture.max_positions,
        "rope_theta": architecture.rope.theta,
        "torch_dtype": "bfloat16",
    }


def cut_vocabulary(document: dict[str, object], rows: int) -> None:
    """Leave out the last tokens of a byte-level tokenizer.json that has more than `rows`."""
    model = document["model"]
    assert isinstance(model, dict)
    if len(model["vocab"]) <= rows:
        return
    kept = {text: id for text, id in model["vocab"].items() if id < rows - SPARE_ROWS}
    model["vocab"] = kept
    model["merges"] = [pair for pair in model["merges"] if all_in(pair, kept)]


def all_in(pair: list[str], kept: dict[str, int]) -> bool:
    return all(text in kept for text in (*pair, "".join(pair)))
