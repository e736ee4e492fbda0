"""Attacks by an adapter's two files: settings that lie, and tensors that do not fit the model."""

import numpy as np
from safetensors.numpy import load_file, save_file

from attacks.attack import (
    Attack,
    bytes_of,
    content,
    fields,
    folder,
    link_out,
    pipe,
    removed,
    safetensors,
    sparse,
)

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PLAN = ("plan", "SOUND", "--adapter", "MODEL", "-q")
DOWN = "base_model.model.model.layers.0.mlp.down_proj"


def write_adapter(directory):
    """A sound adapter of the tiny model, whose feed-forward part is 256 wide."""
    directory.mkdir()
    ones = {f"{DOWN}.lora_A.weight": np.ones((2, 256)), f"{DOWN}.lora_B.weight": np.ones((128, 2))}
    save_file(
        {name: values.astype(np.float32) for name, values in ones.items()}, directory / TENSORS
    )
    (directory / CONFIG).write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')


def tensors(change):
    """The adapter's tensors after `change`, a function of them that returns others."""

    def write(directory):
        save_file(change(load_file(directory / TENSORS)), directory / TENSORS)

    return write


def row(name, words, damage):
    return Attack(f"adapter: {name}", "adapter", damage, words, PLAN)


def settings(name, words, **changes):
    return row(name, words, fields(CONFIG, **changes))


def of_rank(rank):
    """Products of that rank, as empty as that makes them."""
    return lambda stored: {
        name: np.ones((rank, 256) if "lora_A" in name else (128, rank), np.float32)
        for name in stored
    }


MANY = {f"layers.{number}.x": 2 for number in range(100_001)}

ATTACKS = [
    row("a pipe for its settings", (CONFIG,), pipe(CONFIG)),
    row("settings of 2 GB", (CONFIG,), sparse(CONFIG)),
    row("a folder for its settings", (CONFIG,), folder(CONFIG)),
    row("settings elsewhere", (CONFIG,), link_out(CONFIG)),
    row("no settings", (CONFIG,), removed(CONFIG)),
    row("settings of a list", (CONFIG,), content(CONFIG, "[1]")),
    row("settings in settings", (CONFIG,), content(CONFIG, '{"a":' * 90_000 + "1" + "}" * 90_000)),
    row("tensors by a pipe", (TENSORS,), pipe(TENSORS)),
    row("tensors elsewhere", (TENSORS,), link_out(TENSORS)),
    row("no tensors", (TENSORS,), removed(TENSORS)),
    row("tensors cut short", (TENSORS,), bytes_of(TENSORS, lambda data: data[:-9])),
    row("a header of terabytes", (TENSORS,), content(TENSORS, b"\xff" * 7 + b"\x00{}")),
    row(
        "a tensor of no bytes that claims many",
        (TENSORS,),
        content(
            TENSORS,
            safetensors(
                {
                    f"{DOWN}.lora_A.weight": {
                        "dtype": "F32",
                        "shape": [2**40],
                        "data_offsets": [0, 0],
                    }
                }
            ),
        ),
    ),
    row("products of rank 0", ("rank 0",), tensors(of_rank(0))),
    row("products of another rank", ("rank 3",), tensors(of_rank(3))),
    row(
        "products of vectors",
        ("should be [", "mlp.down_proj"),
        tensors(lambda stored: {name: np.ones(2, np.float32) for name in stored}),
    ),
    row(
        "a name that steers terminals",
        (TENSORS,),
        tensors(lambda stored: stored | {"\x1b]0;x\x07": np.ones(2, np.float32)}),
    ),
    settings("a rank of 2^70", ("r in",), r=2**70),
    settings("a scale of 1e31", ("lora_alpha",), lora_alpha=1e31),
    settings("a scale of 400 digits", ("64 digits",), lora_alpha=10**400),
    settings("a method of a list", ("LORA",), peft_type=["LORA"]),
    settings("a method of megabytes", ("LORA",), peft_type="L" * 3_000_000),
    settings("100,001 patterns", ("rank_pattern",), rank_pattern=MANY),
    settings("an expression without end", ("expression",), alpha_pattern={"(a|a)*$": 1}),
    settings("a start of an object", ("changed its base",), init_lora_weights={"a": 1}),
    row(
        "matrices without an extent",
        ("should be [", "mlp.down_proj"),
        tensors(lambda stored: {name: np.ones((), np.float32) for name in stored}),
    ),
    row("no tensors in the file", ("holds no tensors",), tensors(lambda stored: {})),
    row(
        "an embedding of no tokens",
        ("an embedding of 0 tokens",),
        tensors(
            lambda stored: {
                f"base_model.model.{name}.weight": np.ones((0, 128), np.float32)
                for name in ("model.embed_tokens", "lm_head")
            }
        ),
    ),
    settings("a field of megabytes", ("more than",), **{"x" * 3_000_000: 1}),
]
