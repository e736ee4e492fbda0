"""The names under which tensors are stored, and the names that the architecture knows them by.

Tools that wrap a network while it trains leave their mark in the names of its weights, and so
does saving the network without its head. What changes no weight is undone here, with a note for
the plan; an adapter that is not merged is refused, for its weights are not in the matrices yet.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from phiquant.errors import CheckpointError
from phiquant.phi.listed import listed
from phiquant.phi.lora.names import MERGE, PREFIX, TENSORS
from phiquant.phi.safetensors_file import SafetensorsTensor

WRAPPERS: Mapping[str, str] = {
    "_orig_mod": "torch.compile",
    "module": "DataParallel, DistributedDataParallel or DeepSpeed",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
"""A part of a name → what puts it there. Each stands for a wrapper around an unchanged module."""

BUFFER = re.compile(r"(^|\.)rotary_emb\.inv_freq$")
"""A table that older versions of transformers saved; it follows from the configuration."""

EMBEDDING, INNER = "embed_tokens.weight", "model."
"""Names inside of the network without its head, and what comes before them in the whole."""


def architecture_names(
    stored: Iterable[SafetensorsTensor],
) -> tuple[dict[str, SafetensorsTensor], tuple[str, ...]]:
    """The tensors by the architecture's names, in the order given, and notes on what was undone.

    Raises CheckpointError for an adapter that is not merged, and where two stored names come to
    the same.
    """
    tensors = {tensor.name: tensor for tensor in stored}
    _refuse_adapter(tensors)
    notes: list[str] = []
    for word, tool in WRAPPERS.items():
        tensors = _renamed(tensors, _without(word), f"{word}., which {tool} adds,", notes)
    tensors = _renamed(tensors, _without_prefix(PREFIX), f"{PREFIX}, which PEFT adds,", notes)
    if INNER * 2 + EMBEDDING in tensors:
        tensors = _renamed(tensors, _without_prefix(INNER), f"a second {INNER}", notes)
    if EMBEDDING in tensors:
        tensors = {
            _inside(name): replace(tensor, name=_inside(name)) for name, tensor in tensors.items()
        }
        notes.append(f"{INNER} was put before the names of the tensors, which lacked it")
    kept = {name: tensor for name, tensor in tensors.items() if not BUFFER.search(name)}
    if len(kept) < len(tensors):
        notes.append("stored rotary tables (inv_freq) were left out: they follow from config.json")
    return kept, tuple(notes)


def _refuse_adapter(tensors: Mapping[str, SafetensorsTensor]) -> None:
    parts = [name for name in tensors if TENSORS.search(name)]
    if parts:
        raise CheckpointError(
            f"{tensors[parts[0]].path.name} holds an adapter that is not merged ({listed(parts)}); "
            f"{MERGE}"
        )


def _renamed(
    tensors: Mapping[str, SafetensorsTensor],
    plain: Callable[[str], str],
    what: str,
    notes: list[str],
) -> dict[str, SafetensorsTensor]:
    """The tensors by their plain names; `notes` gets a sentence if any was called otherwise."""
    changed = [name for name in tensors if plain(name) != name]
    if not changed:
        return dict(tensors)
    renamed: dict[str, SafetensorsTensor] = {}
    for name, tensor in tensors.items():
        if plain(name) in renamed:
            raise CheckpointError(
                f"{name} and {plain(name)} are the same tensor, stored twice, but for the name of "
                f"a wrapper; remove the one that is not the model's ({tensor.path.name})"
            )
        renamed[plain(name)] = replace(tensor, name=plain(name))
    notes.append(f"{what} was taken off the names of {len(changed)} tensors")
    return renamed


def _without(word: str) -> Callable[[str], str]:
    return lambda name: ".".join(part for part in name.split(".") if part != word)


def _without_prefix(prefix: str) -> Callable[[str], str]:
    return lambda name: name.removeprefix(prefix)


def _inside(name: str) -> str:
    return name if _is_head(name) else INNER + name


def _is_head(name: str) -> bool:
    return name.startswith("lm_head.")
