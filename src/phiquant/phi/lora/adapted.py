"""A checkpoint with a LoRA adapter over it: read like any checkpoint, changed as it is read.

An adapter changes matrices by products, and may bring weights of its own (`modules_to_save`), an
embedding of another vocabulary among them, with the tokenizer that belongs to it. Its tensors name
modules of the base as it was when it was trained, fused or not; the base here may be stored either
way. Source: `get_peft_model_state_dict` and the LoRA layers of PEFT.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phiquant.errors import CheckpointError
from phiquant.host import foreign
from phiquant.host.file_state import file_state
from phiquant.host.opened_file import OpenedFile
from phiquant.phi.checkpoint import Adapter, Checkpoint
from phiquant.phi.classes.phi3 import EMBEDDING, HEAD
from phiquant.phi.config import MOST_IDS
from phiquant.phi.listed import listed
from phiquant.phi.lora.names import CONFIG, FILE, MERGE, PREFIX
from phiquant.phi.lora.product import Product
from phiquant.phi.lora.settings import LoraSettings, read_settings
from phiquant.phi.network.parts import Network, Part
from phiquant.phi.safetensors_file import SafetensorsTensor, read_header
from phiquant.phi.source import TOKENIZER_FILES, Source
from phiquant.phi.stored_weight import StoredWeight
from phiquant.phi.tied_head import are_equal
from phiquant.phi.widen import WEIGHT_DTYPES

WANTED = (CONFIG, FILE, *TOKENIZER_FILES)
"""What is fetched of an adapter on the hub."""

MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
OF_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])")
WHOLE = re.compile(r"(?P<module>.+?)(\.base_layer|\.modules_to_save)?\.weight")


@dataclass(slots=True)
class _Pair:
    """The two matrices of a module's product."""

    sides: dict[str, SafetensorsTensor]
    across: bool


def adapted(checkpoint: Checkpoint, source: Source) -> Checkpoint:
    """`checkpoint` with the adapter at `source` over it.

    Raises ConfigError or CheckpointError for what is no LoRA adapter of this model.
    """
    directory = source.directory
    settings = read_settings(directory)
    path = directory / FILE
    if not foreign.present(path):
        raise CheckpointError(_without_tensors(directory))
    pairs, wholes = _sorted_out(read_header(path, directory))
    if checkpoint.architecture.tied_head and pairs.keys() & {EMBEDDING, HEAD}:
        raise CheckpointError(
            "the adapter has products for a matrix that is the embedding and the head too, which "
            f"PEFT runs and merges differently; {MERGE}"
        )
    opened = OpenedFile(path, CheckpointError)
    checkpoint = _with_weights(checkpoint, wholes, opened)
    products = _products(checkpoint.architecture.network, pairs, settings)
    has_tokenizer = any(
        foreign.present(directory / name) for name in ("tokenizer.json", "tokenizer.model")
    )
    return replace(
        checkpoint,
        opened={**checkpoint.opened, path: opened},
        states={**checkpoint.states, path: file_state(path)},
        products=products,
        adapter=Adapter(source, settings.as_json()),
        tokenizer_directory=directory if has_tokenizer else checkpoint.tokenizer_directory,
        notes=(
            *checkpoint.notes,
            _note(source, products, wholes),
            *_notes_on_tokenizer(directory, has_tokenizer),
        ),
    )


def _without_tensors(directory: Path) -> str:
    if foreign.present(directory / "adapter_model.bin"):
        return (
            "found only a pickled adapter (adapter_model.bin), which can run code when loaded; "
            "save it again with PEFT's save_pretrained(safe_serialization=True)"
        )
    return f"found an {CONFIG} and no {FILE} in {directory}"


def _sorted_out(
    stored: tuple[SafetensorsTensor, ...],
) -> tuple[dict[str, _Pair], dict[str, SafetensorsTensor]]:
    """Products and whole weights by the names of their modules, without PEFT's prefix."""
    pairs: dict[str, _Pair] = {}
    wholes: dict[str, SafetensorsTensor] = {}
    strange = []
    for tensor in stored:
        name = tensor.name.removeprefix(PREFIX)
        match = MATRIX.fullmatch(name) or OF_EMBEDDING.fullmatch(name)
        if match is not None:
            across = name.rpartition(".")[2].startswith("lora_embedding")
            pairs.setdefault(match["module"], _Pair({}, across)).sides[match["side"]] = tensor
        elif "lora_" not in name and (match := WHOLE.fullmatch(name)) is not None:
            wholes[match["module"]] = tensor
        else:
            strange.append(tensor.name)
    strange += [module for module, pair in pairs.items() if pair.sides.keys() != {"A", "B"}]
    if not stored:
        raise CheckpointError(
            f"{FILE} holds no tensors; training in parts leaves such a file where the parts were "
            "not gathered before saving: save the adapter again"
        )
    odd = [tensor.name for tensor in stored if tensor.dtype not in WEIGHT_DTYPES]
    if strange or odd:
        raise CheckpointError(
            f"{FILE} holds {listed(strange or odd)}, which is no part of a LoRA adapter; {MERGE}"
        )
    return pairs, wholes


def _places(network: Network) -> dict[str, Part]:
    """Every matrix by its module's name: whole layers, and the parts that they consist of."""
    places = {}
    for name, layer in network.linear.items():
        whole = Part(name, layer.weight, 0, layer.rows)
        for part in (whole, *layer.parts):
            places[part.stem] = part
    return places


def _products(
    network: Network, pairs: Mapping[str, _Pair], settings: LoraSettings
) -> dict[str, tuple[Product, ...]]:
    """The products by the names of the weights that they change."""
    places, products = _places(network), dict[str, tuple[Product, ...]]()
    unknown = [module for module in pairs if module not in places]
    if unknown:
        raise CheckpointError(
            f"the adapter changes {listed(unknown)}, which the model has not; it belongs to another"
        )
    for module, pair in pairs.items():
        part, (a, b) = places[module], (pair.sides["A"], pair.sides["B"])
        rank = a.shape[0] if len(a.shape) == 2 else 0
        rows, columns = part.rows, part.weight.shape[1]
        outer = (columns, rows) if pair.across else (rows, columns)
        if a.shape != (rank, outer[1]) or b.shape != (outer[0], rank):
            raise CheckpointError(
                f"the adapter's matrices for {module} are {list(a.shape)} and {list(b.shape)}; for "
                f"{rows} × {columns} weights they should be [{rank}, {outer[1]}] and "
                f"[{outer[0]}, {rank}]"
            )
        up, down = (a, b) if pair.across else (b, a)
        scale = settings.scale(module, rank)
        made = Product(part.first, rows, up, down, scale, pair.across)
        products[part.weight.name] = (*products.get(part.weight.name, ()), made)
    return products


def _with_weights(
    checkpoint: Checkpoint, wholes: Mapping[str, SafetensorsTensor], opened: OpenedFile
) -> Checkpoint:
    """The checkpoint with the adapter's own weights in place of its, of whatever vocabulary."""
    if not wholes:
        return checkpoint
    network = checkpoint.architecture.network
    embedding, head = f"{EMBEDDING}.weight", f"{HEAD}.weight"
    named = {f"{module}.weight": tensor for module, tensor in wholes.items()}
    stays_tied = network.is_tied and _brings_one_table(wholes, opened)
    if stays_tied:
        del named[head]
    unties = network.is_tied and not stays_tied and bool({embedding, head} & named.keys())
    tensors = dict(checkpoint.tensors)
    if unties:  # PEFT trains a copy: what it does not train stays what it was
        tensors[head] = StoredWeight(head, tensors[embedding].tensors)
    architecture = replace(
        checkpoint.architecture,
        tied_head=network.is_tied and not unties,
        vocabulary_size=_vocabulary(checkpoint, named.get(embedding)),
    )
    expected = {weight.name: weight.shape for weight in architecture.weights()}
    for name, tensor in named.items():
        if tensor.shape != expected.get(name):
            raise CheckpointError(
                f"the adapter brings {name} as {list(tensor.shape)}, and the model has "
                f"{list(expected[name]) if name in expected else 'no such weight'}"
            )
        tensors[name] = StoredWeight(name, (tensor,))
    stale = [name for name, shape in expected.items() if tensors[name].shape != shape]
    if stale:
        raise CheckpointError(
            f"the adapter's vocabulary has {architecture.vocabulary_size} tokens, and {stale[0]} "
            f"of the base {tensors[stale[0]].shape[0]}; {MERGE}"
        )
    config: dict[str, Any] = {
        **checkpoint.config,
        "vocab_size": architecture.vocabulary_size,
        "tie_word_embeddings": architecture.tied_head,
    }
    return replace(checkpoint, architecture=architecture, config=config, tensors=tensors)


def _brings_one_table(wholes: Mapping[str, SafetensorsTensor], opened: OpenedFile) -> bool:
    """Whether embedding and head are brought as one table twice, as PEFT saves tied ones."""
    if not wholes.keys() >= {EMBEDDING, HEAD} or len(wholes[EMBEDDING].shape) != 2:
        return False
    rows, columns = wholes[EMBEDDING].shape
    return are_equal((rows, columns), wholes[EMBEDDING], wholes[HEAD], {opened.path: opened})


def _vocabulary(checkpoint: Checkpoint, embedding: SafetensorsTensor | None) -> int:
    if embedding is None or not embedding.shape:
        return checkpoint.architecture.vocabulary_size
    if not 1 <= embedding.shape[0] <= MOST_IDS:
        raise CheckpointError(
            f"the adapter brings an embedding of {embedding.shape[0]:,} tokens, expected 1 to "
            f"{MOST_IDS:,}"
        )
    return embedding.shape[0]


def _note(source: Source, products: Mapping[str, object], wholes: Mapping[str, object]) -> str:
    return f"with the LoRA adapter {source.name}: " + " and ".join(_changes(products, wholes))


def _notes_on_tokenizer(directory: Path, taken: bool) -> Iterator[str]:
    """Which tokenizer is taken, and what of the adapter's is not."""
    files = ("tokenizer_config.json", "chat_template.jinja")
    there = [name for name in files if foreign.present(directory / name)]
    if taken:
        yield "the tokenizer and its chat template are the adapter's" + (
            "" if there else ", which has no chat template"
        )
    elif there:
        yield f"not read: the adapter's {listed(there)}, for it has no tokenizer"


def _changes(products: Mapping[str, object], wholes: Mapping[str, object]) -> Iterator[str]:
    if products or not wholes:
        yield f"{len(products)} matrices changed by its products"
    if wholes:
        yield f"{listed(list(wholes))} in place of the base's"
