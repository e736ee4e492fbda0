"""A synthetic checkpoint of Phi-4-mini's shapes: 3.84 B BF16 parameters, 7.67 GB, in two shards.

    python benchmarks/checkpoints.py DIRECTORY [--layers 32] [--peers .venv-peers/bin/python]

Files and names are those that Hugging Face has (`config.json` of the classic schema with LongRoPE,
`model-0000N-of-0000M.safetensors` and their index, `generation_config.json`, a tokenizer), so that
each tool runs on it unmodified. The values are random: speed and memory do not depend on them,
and no figure of quality is taken from this checkpoint.

How the weights are made: one pool of 2^25 values, normal with deviation 0.02, one in a thousand
eight times as large, is drawn in float32 and rounded to BF16 once. A band of rows takes the pool
from a random place on. So a weight is never constant, and never repeats within a band, while
writing stays bound by the disk. Norm gains are normal around 1.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import LongRope, Rope, Weight

SHARD_BYTES = 5_000_000_000
"""Where Hugging Face's `save_pretrained` began a new file when Phi-4-mini was published."""
POOL = 1 << 25
BAND = 1 << 23
SEED = 20250226
TOKENIZER_SCRIPT = Path(__file__).parent / "peers" / "tokenizer.py"
DEFAULT_PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin" / "python"

Bfloat16 = NDArray[np.uint16]


def phi4_mini_architecture(layers: int = 32) -> Architecture:
    """The dimensions of Phi-4-mini; the LongRoPE factors are made up, rising as published ones."""
    steps = np.linspace(0.0, 1.0, 48)
    return Architecture(
        hidden_size=3072,
        layers=layers,
        heads=24,
        kv_heads=8,
        head_size=128,
        intermediate_size=8192,
        vocabulary_size=200064,
        norm_epsilon=1e-5,
        tied_head=True,
        max_positions=131072,
        sliding_window=262144,
        rope=Rope(
            theta=10000.0,
            dimensions=96,
            long=LongRope(
                short_factors=tuple((1.0 + 0.5 * steps**4).round(6).tolist()),
                long_factors=tuple((1.0 + 47.0 * steps**2).round(6).tolist()),
                original_positions=4096,
                attention_factor=1.1902380714238083,
            ),
        ),
    )


def phi4_mini_shaped(directory: Path, layers: int = 32, peers: Path = DEFAULT_PEERS) -> None:
    """Write the checkpoint into `directory`, which is made and must not exist.

    `peers` is the Python of the peers' environment; it holds the data of the vocabulary.
    """
    directory.mkdir(parents=True)
    architecture = phi4_mini_architecture(layers)
    subprocess.run([peers, TOKENIZER_SCRIPT, directory], check=True)
    write_json(directory / "config.json", config_json(architecture))
    write_json(directory / "generation_config.json", generation_config_json())
    write_weights(directory, architecture.weights())


def kept_checkpoint(work: Path, layers: int, peers: Path = DEFAULT_PEERS) -> Path:
    """The checkpoint of so many layers under `work`, made when it is not there yet."""
    directory = work / f"phi-4-mini-shaped-{layers}"
    if not directory.exists():
        print(f"making {directory}", file=sys.stderr, flush=True)
        making = directory.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        phi4_mini_shaped(making, layers, peers)
        making.rename(directory)
    return directory


def config_json(architecture: Architecture) -> dict[str, object]:
    """`config.json` in the classic schema, with the fields that Phi-4-mini publishes."""
    rope, long = architecture.rope, architecture.rope.long
    assert long is not None
    return {
        "architectures": ["Phi3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 199999,
        "embd_pdrop": 0.0,
        "eos_token_id": 199999,
        "hidden_act": "silu",
        "hidden_size": architecture.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": architecture.intermediate_size,
        "max_position_embeddings": architecture.max_positions,
        "model_type": "phi3",
        "num_attention_heads": architecture.heads,
        "num_hidden_layers": architecture.layers,
        "num_key_value_heads": architecture.kv_heads,
        "original_max_position_embeddings": long.original_positions,
        "pad_token_id": 199999,
        "partial_rotary_factor": rope.dimensions / architecture.head_size,
        "resid_pdrop": 0.0,
        "rms_norm_eps": architecture.norm_epsilon,
        "rope_scaling": {
            "long_factor": list(long.long_factors),
            "short_factor": list(long.short_factors),
            "type": "longrope",
        },
        "rope_theta": rope.theta,
        "sliding_window": architecture.sliding_window,
        "tie_word_embeddings": architecture.tied_head,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": architecture.vocabulary_size,
    }


def generation_config_json() -> dict[str, object]:
    return {"bos_token_id": 199999, "eos_token_id": [200020, 199999], "pad_token_id": 199999}


def write_weights(directory: Path, weights: tuple[Weight, ...]) -> None:
    """Write the shards one after another, and the index that says which tensor is where."""
    shards = list(split_into_shards(weights))
    generator = np.random.default_rng(SEED)
    pool = random_pool(generator)
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        names |= {weight.name: file for weight in shard}
        write_shard(directory / file, shard, pool, generator)
    total = sum(byte_size(weight) for weight in weights)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    write_json(directory / "model.safetensors.index.json", index)


def split_into_shards(weights: tuple[Weight, ...]) -> Iterator[list[Weight]]:
    """Fill shards in network order up to `SHARD_BYTES`; names are sorted within each."""
    shard: list[Weight] = []
    for weight in weights:
        if sum(map(byte_size, shard)) + byte_size(weight) > SHARD_BYTES:
            yield sorted(shard, key=lambda member: member.name)
            shard = []
        shard.append(weight)
    yield sorted(shard, key=lambda member: member.name)


def write_shard(
    path: Path, weights: list[Weight], pool: Bfloat16, generator: np.random.Generator
) -> None:
    """One safetensors file of random weights."""
    with path.open("wb") as file:
        file.write(shard_header(weights))
        for weight in weights:
            for band in bands(weight, pool, generator):
                file.write(band.data)


def shard_header(weights: list[Weight]) -> bytes:
    """How a safetensors file of BF16 begins: u64 length of the header, JSON header. Tensors follow
    in the order of `weights`, without gaps.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for weight in weights:
        end = begin + byte_size(weight)
        entries[weight.name] = {
            "dtype": "BF16",
            "shape": list(weight.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def bands(weight: Weight, pool: Bfloat16, generator: np.random.Generator) -> Iterator[Bfloat16]:
    """The values of one weight, in pieces of at most `BAND`."""
    left = byte_size(weight) // 2
    if weight.role.is_norm:
        gains = 1.0 + 0.1 * generator.standard_normal(left, dtype=np.float32)
        yield round_to_bfloat16(gains.astype(np.float32))
        return
    while left:
        size = min(left, BAND)
        start = int(generator.integers(0, len(pool) - size, endpoint=True))
        yield pool[start : start + size]
        left -= size


def random_pool(generator: np.random.Generator) -> Bfloat16:
    """`POOL` weights: normal, deviation 0.02, every thousandth or so eight times as large."""
    pool = np.empty(POOL, dtype=np.uint16)
    for begin in range(0, POOL, BAND):
        values = generator.standard_normal(BAND, dtype=np.float32)
        values *= np.float32(0.02)
        values[generator.integers(0, BAND, BAND // 1000)] *= np.float32(8.0)
        pool[begin : begin + BAND] = round_to_bfloat16(values)
    return pool


def round_to_bfloat16(values: NDArray[np.float32]) -> Bfloat16:
    """The upper halves of finite float32 values, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)


def byte_size(weight: Weight) -> int:
    size = 2
    for length in weight.shape:
        size *= length
    return size


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS)
    options = parser.parse_args()
    if options.directory.exists():
        sys.exit(f"{options.directory} exists; remove it or name another directory.")
    started = time.perf_counter()
    phi4_mini_shaped(options.directory, options.layers, options.peers)
    size = sum(path.stat().st_size for path in options.directory.iterdir())
    print(f"{options.directory}: {size:,} bytes in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
