"""Attacks by MLX artifacts."""

import json
import struct

from attacks.attack import (
    FAILED_VERIFICATION,
    INSPECT,
    VERIFY,
    Attack,
    all_of,
    bytes_of,
    content,
    edited,
    fields,
    link_out,
    pipe,
    removed,
    safetensors,
    sparse,
)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MATRIX = "model.layers.0.self_attn.o_proj"
LONG = {"type": "longrope", "long_factor": [1.0] * 16}


def row(name, damage, *words, command=INSPECT, code=2):
    return Attack(name, "mlx", damage, words, command, code)


def header(name, change, *words):
    """Another header before the same bytes."""

    def damage(data):
        (length,) = struct.unpack("<Q", data[:8])
        head = json.loads(data[8 : 8 + length])
        return safetensors(change(head) or head, data[8 + length :])

    return row(name, bytes_of(WEIGHTS, damage), *words)


def config(name, words, **changes):
    return row(name, fields(CONFIG, **changes), *words)


def kept(name, *words, **changes):
    """What phiquant keeps of the checkpoint's LongRoPE."""
    lengths = {"original_positions": 64, "max_positions": 256}
    return config(
        name,
        words,
        rope_scaling=LONG,
        original_max_position_embeddings=64,
        phiquant={"longrope": lengths | changes},
    )


def reshaped(name, shape):
    def change(head):
        head[name]["shape"] = shape

    return change


def second(directory):
    (directory / "model-2.safetensors").write_bytes((directory / WEIGHTS).read_bytes())


ATTACKS = [
    row("a pipe for the weights", pipe(WEIGHTS), WEIGHTS, "pipe"),
    row("a link out for the weights", link_out(WEIGHTS), WEIGHTS, "outside"),
    row("weights of 2 GB of nothing", sparse(WEIGHTS), WEIGHTS),
    row("no weights", lambda d: (d / WEIGHTS).unlink(), "model*.safetensors"),
    row("weights of nothing", content(WEIGHTS, b""), WEIGHTS),
    row("all tensors twice", second, "two files"),
    header("one tensor less", lambda h: {k: v for k, v in h.items() if MATRIX not in k}, WEIGHTS),
    header("words that are bytes", reshaped(f"{MATRIX}.weight", [128, 4, 4]), MATRIX),
    header("scales of no dimension", reshaped(f"{MATRIX}.scales", []), WEIGHTS),
    header(
        "a tensor of another name", lambda h: h | {"x": h.pop("model.norm.weight")}, "model.norm"
    ),
    header("metadata of numbers", lambda h: h | {"__metadata__": {"format": 7}}, WEIGHTS),
    config("a quantization of a list", ("quantization",), quantization=[1]),
    row(
        "bits that are not there",
        edited(CONFIG, lambda d: d["quantization"].update({MATRIX: {"bits": 8, "group_size": 64}})),
        "8 bits",
    ),
    row(
        "bits of a list",
        edited(
            CONFIG, lambda d: d["quantization"].update({MATRIX: {"bits": [4], "group_size": {}}})
        ),
        MATRIX,
    ),
    config("no hidden size", ("hidden_size",), hidden_size=None),
    config("ten thousand layers", ("layers.2",), num_hidden_layers=10_000),
    config("a scaling by lines", ("linear",), rope_scaling={"type": "linear"}),
    config("LongRoPE without factors", ("long_factor",), rope_scaling={"type": "longrope"}),
    config(
        "factors of texts",
        ("long_factor",),
        rope_scaling={"type": "longrope", "long_factor": ["1"] * 16},
    ),
    config(
        "factors below zero",
        ("not all positive",),
        rope_scaling={"type": "longrope", "long_factor": [-1.0] * 16},
    ),
    config(
        "an original length of half a token",
        ("original length",),
        rope_scaling=LONG,
        original_max_position_embeddings=0.5,
    ),
    config(
        "an original length of one",
        ("original length",),
        rope_scaling=LONG,
        original_max_position_embeddings=1,
    ),
    config(
        "an original length of a list",
        ("original length",),
        rope_scaling=LONG,
        original_max_position_embeddings=[64],
    ),
    kept("kept lengths of 10^30", "positions", max_positions=10**30),
    kept("kept lengths of a text", "positive lengths", original_positions="64"),
    kept("kept lengths below zero", "positive lengths", original_positions=-1),
    row(
        "a tokenizer that the runtime would wait for",
        pipe("tokenizer.json"),
        "tokenizer.json",
        "pipe",
        command=VERIFY,
    ),
    row(
        "code that comes with the artifact",
        all_of(fields(CONFIG, model_file="evil.py"), removed("phiquant.json")),
        "model_file",
        command=VERIFY,
        code=FAILED_VERIFICATION,
    ),
]
