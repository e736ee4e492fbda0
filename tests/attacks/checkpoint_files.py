"""Attacks by what a checkpoint's files are, and by its weights."""

import json
import struct

import numpy as np
from safetensors import safe_open

from attacks.attack import (
    Attack,
    all_of,
    bytes_of,
    content,
    edited,
    fields,
    folder,
    link_out,
    pipe,
    safetensors,
    sparse,
)
from tiny_models import tiny_config, tiny_weights, write_safetensors

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DOWN = "model.layers.1.mlp.down_proj.weight"

READ = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
]
"""Files that every target reads, apart from the weights."""
COPIED = ["vocab.json", "merges.txt", "tokenizer.model"]
"""Files that are copied into artifacts for some targets."""
TO_MLX = ("plan", "MODEL", "--to", "mlx", "-q")


def only(name):
    """Take away what would be read before the file `name`."""

    def write(directory):
        if name == INDEX:
            shard = (directory / WEIGHTS).rename(directory / "model-00001-of-00001.safetensors")
            with safe_open(shard, "numpy") as file:
                mapping = dict.fromkeys(file.keys(), shard.name)
            (directory / INDEX).write_text(json.dumps({"weight_map": mapping}))

    return write


def header(change):
    """The weights with another header; the tensors' bytes stay."""

    def write(data):
        (length,) = struct.unpack("<Q", data[:8])
        changed = change(json.loads(data[8 : 8 + length]))
        return safetensors(changed, data[8 + length :])

    return bytes_of(WEIGHTS, write)


def weights(change, dtype="F32"):
    """Other weights of the same names."""

    def write(directory):
        config = json.loads((directory / "config.json").read_text())
        arrays = tiny_weights(tiny_config(**config))
        write_safetensors(directory / WEIGHTS, change(arrays) or arrays, dtype)

    return write


def one_value(value, name=DOWN):
    def change(arrays):
        arrays[name][3, 5] = value

    return weights(change)


def indexed(mapping):
    """An index in place of the single file."""

    def write(directory):
        only(INDEX)(directory)
        edited(INDEX, mapping)(directory)

    return write


def many_empty(count):
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return safetensors(b"{" + b",".join(entry % number for number in range(count)) + b"}")


def dotted(header_of):
    name = "x" + ".y" * 2_000_000
    return header_of | {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}


def endless_link(directory):
    (directory / "config.json").unlink()
    (directory / "config.json").symlink_to("config.json")


def dangling(directory):
    (directory / "generation_config.json").unlink()
    (directory / "generation_config.json").symlink_to("nowhere.json")


def device(directory):
    (directory / "generation_config.json").unlink()
    (directory / "generation_config.json").symlink_to("/dev/zero")


def folder_link(directory):
    outside = directory.parent / "templates"
    outside.mkdir()
    (outside / "secret.jinja").write_text("{{ 'secret' }}")
    (directory / "additional_chat_templates").symlink_to(outside)


def not_a_snapshot(directory):
    """The layout of the hub's cache, but for the name of its folder."""
    blobs = directory.parent / "blobs"
    blobs.mkdir()
    (directory / "config.json").rename(blobs / "0123")
    (directory / "config.json").symlink_to("../blobs/0123")


def gaps(directory):
    path = directory / WEIGHTS
    path.rename(directory / "model-00001-of-99999.safetensors")


def doubled(data):
    (length,) = struct.unpack("<Q", data[:8])
    text = data[8 : 8 + length].rstrip()
    entry = json.dumps({DOWN: json.loads(text)[DOWN]})[1:-1].encode()
    return safetensors(text[:-1] + b"," + entry + b"}", data[8 + length :])


ATTACKS = [
    *(Attack(f"a pipe for {name}", "checkpoint", pipe(name), (name, "pipe")) for name in READ),
    *(
        Attack(
            f"a pipe for {name}, which is copied", "checkpoint", pipe(name), (name, "pipe"), TO_MLX
        )
        for name in COPIED
    ),
    Attack("a pipe for the weights", "checkpoint", pipe(WEIGHTS), (WEIGHTS, "pipe")),
    Attack(
        "a pipe for the index",
        "checkpoint",
        all_of(only(INDEX), pipe(INDEX)),
        (INDEX, "pipe"),
    ),
    *(
        Attack(f"a directory for {name}", "checkpoint", folder(name), (name, "directory"))
        for name in ("config.json", "generation_config.json", "tokenizer.json", WEIGHTS)
    ),
    *(
        Attack(f"2 GB of nothing for {name}", "checkpoint", sparse(name), (name, "bytes"))
        for name in READ[:-1]
    ),
    *(
        Attack(f"2 GB of nothing for {name}", "checkpoint", sparse(name), (name, "bytes"), TO_MLX)
        for name in COPIED
    ),
    Attack(
        "2 GB of nothing for the index", "checkpoint", all_of(only(INDEX), sparse(INDEX)), (INDEX,)
    ),
    Attack("weights of 2 GB of nothing", "checkpoint", sparse(WEIGHTS), (WEIGHTS, "sound")),
    *(
        Attack(
            f"a link out for {name}", "checkpoint", link_out(name), (name, "outside of the model")
        )
        for name in READ
    ),
    *(
        Attack(f"a link out for {name}", "checkpoint", link_out(name), (name, "outside"), TO_MLX)
        for name in COPIED
    ),
    Attack("a link out for the weights", "checkpoint", link_out(WEIGHTS), (WEIGHTS, "outside")),
    Attack("a link to itself", "checkpoint", endless_link, ("config.json", "symbolic links")),
    Attack("a link to nothing", "checkpoint", dangling, ("generation_config.json", "No such file")),
    Attack("a link to a device", "checkpoint", device, ("generation_config.json", "/dev/zero")),
    Attack(
        "a folder of templates elsewhere", "checkpoint", folder_link, ("secret.jinja", "outside")
    ),
    Attack("blobs of no cache", "checkpoint", not_a_snapshot, ("config.json", "outside")),
    # safetensors
    Attack("half a length", "checkpoint", content(WEIGHTS, b"\1\2\3"), (WEIGHTS, "3 bytes")),
    Attack("no weights at all", "checkpoint", content(WEIGHTS, b""), (WEIGHTS, "0 bytes")),
    Attack(
        "a header of exabytes",
        "checkpoint",
        bytes_of(WEIGHTS, lambda data: struct.pack("<Q", 1 << 60) + data[8:]),
        (WEIGHTS, "header of 1,152,921,504,606,846,976 bytes"),
    ),
    Attack(
        "a header of 90 MB of blanks",
        "checkpoint",
        content(WEIGHTS, lambda: struct.pack("<Q", 90 << 20) + b"{}".ljust(90 << 20)),
        (WEIGHTS, "header"),
    ),
    Attack(
        "a header that is no JSON", "checkpoint", content(WEIGHTS, safetensors(b"{")), (WEIGHTS,)
    ),
    Attack(
        "a header that is no UTF-8",
        "checkpoint",
        content(WEIGHTS, safetensors(b"\xff{}")),
        (WEIGHTS,),
    ),
    Attack(
        "a header that is a list", "checkpoint", content(WEIGHTS, safetensors(b"[]")), (WEIGHTS,)
    ),
    Attack(
        "a deep header",
        "checkpoint",
        content(WEIGHTS, safetensors(b"[" * 200_000)),
        (WEIGHTS, "deep"),
    ),
    Attack(
        "1.5 million empty tensors",
        "checkpoint",
        content(WEIGHTS, lambda: many_empty(1_500_000)),
        (WEIGHTS,),
    ),
    Attack(
        "100,000 empty tensors",
        "checkpoint",
        content(WEIGHTS, lambda: many_empty(100_000)),
        ("99997 more",),
    ),
    Attack(
        "20,000 empty tensors",
        "checkpoint",
        content(WEIGHTS, lambda: many_empty(20_000)),
        ("not part of the architecture",),
    ),
    Attack(
        "a name of millions of dots", "checkpoint", header(dotted), (WEIGHTS, "name of 4000001")
    ),
    Attack(
        "a tensor named twice",
        "checkpoint",
        bytes_of(WEIGHTS, doubled),
        (WEIGHTS, "given twice"),
    ),
    Attack(
        "a shape of 0",
        "checkpoint",
        header(lambda h: h | {"x": {"dtype": "F32", "shape": [0, 128], "data_offsets": [0, 0]}}),
        ("not part of the architecture: x",),
    ),
    Attack(
        "a shape whose size overflows",
        "checkpoint",
        header(lambda h: h | {DOWN: h[DOWN] | {"shape": [1 << 40, 1 << 40]}}),
        (WEIGHTS, "sound"),
    ),
    Attack(
        "a weight that is a scalar",
        "checkpoint",
        header(lambda h: h | {"model.norm.weight": h["model.norm.weight"] | {"shape": []}}),
        (WEIGHTS, "sound"),
    ),
    Attack(
        "a line end in a name",
        "checkpoint",
        weights(lambda w: w | {"a\nphiquant: b\x1b[2J": np.ones(3, np.float32)}),
        ("not part of the architecture",),
    ),
    Attack("one NaN", "checkpoint", one_value(np.nan), (DOWN, "NaN")),
    Attack("one infinity", "checkpoint", one_value(-np.inf), (DOWN, "NaN or infinite")),
    Attack(
        "what Git LFS leaves",
        "checkpoint",
        content(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid"),
        ("Git LFS",),
    ),
    # the index
    *(
        Attack(
            f"an index that leads to {name!r}",
            "checkpoint",
            indexed(lambda d, name=name: d["weight_map"].update({DOWN: name})),
            (INDEX, "outside"),
        )
        for name in ("../other.safetensors", "/etc/passwd", "..", "", "a\0b")
    ),
    Attack(
        "an index of numbers", "checkpoint", indexed(lambda d: {"weight_map": {"a": 1}}), (INDEX,)
    ),
    Attack("an index that is a list", "checkpoint", indexed(lambda d: []), (INDEX, "object")),
    Attack(
        "an index of 300,000 files",
        "checkpoint",
        indexed(lambda d: {"weight_map": {str(n): f"{n}.safetensors" for n in range(300_000)}}),
        (INDEX, "300000 files"),
    ),
    Attack("one of 99,999 shards", "checkpoint", gaps, ("model-00002-of-99999",)),
    Attack(
        "weights named elsewhere",
        "checkpoint",
        fields("config.json", transformers_weights="../x.safetensors"),
        ("transformers_weights",),
    ),
    Attack(
        "weights named with a null character",
        "checkpoint",
        fields("config.json", transformers_weights="a\0b"),
        ("transformers_weights",),
    ),
]
