"""Whether the head is the embedding: what config.json says, and what is stored.

Where config.json ties the two and both are stored, transformers compares them: equal ones are one
matrix, different ones stay two. Where only one is stored, it serves as both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from phiquant.host.opened_file import OpenedFile
from phiquant.phi.architecture import Architecture
from phiquant.phi.classes import phi3
from phiquant.phi.safetensors_file import SafetensorsTensor, read_rows
from phiquant.phi.weights import Floats, row_bands
from phiquant.phi.widen import WEIGHT_DTYPES, widen

EMBEDDING, HEAD = f"{phi3.EMBEDDING}.weight", f"{phi3.HEAD}.weight"

Opened = Mapping[Path, OpenedFile]


@dataclass(frozen=True, slots=True)
class Settled:
    """The architecture with the head that the weights give it, and the tensors that it has."""

    architecture: Architecture
    tensors: Mapping[str, SafetensorsTensor]
    notes: tuple[str, ...] = ()


def settle_head(
    architecture: Architecture, tensors: Mapping[str, SafetensorsTensor], opened: Opened
) -> Settled:
    """Decide between a tied and an untied head; reads both matrices if both are stored.

    `opened` are the tensors' files.
    """
    if not architecture.tied_head or HEAD not in tensors:
        return Settled(architecture, tensors)
    if EMBEDDING not in tensors:
        note = f"{HEAD} alone is stored, and config.json ties the two: it is the embedding as well"
        return Settled(architecture, _as_embedding(tensors), (note,))
    shape = (architecture.vocabulary_size, architecture.hidden_size)
    if are_equal(shape, tensors[EMBEDDING], tensors[HEAD], opened):
        note = f"{HEAD} is stored beside {EMBEDDING} and equals it: one matrix serves as both"
        return Settled(
            architecture, {n: tensor for n, tensor in tensors.items() if n != HEAD}, (note,)
        )
    note = (
        f"config.json ties {HEAD} to {EMBEDDING}, and the two are stored with different values: "
        "the head is kept as a matrix of its own, as transformers does"
    )
    return Settled(replace(architecture, tied_head=False), tensors, (note,))


def _as_embedding(tensors: Mapping[str, SafetensorsTensor]) -> dict[str, SafetensorsTensor]:
    """The same tensors in the same order, the head under the embedding's name."""
    renamed = (
        replace(tensor, name=EMBEDDING) if tensor.name == HEAD else tensor
        for tensor in tensors.values()
    )
    return {tensor.name: tensor for tensor in renamed}


def are_equal(
    shape: tuple[int, int],
    embedding: SafetensorsTensor,
    head: SafetensorsTensor,
    opened: Opened,
) -> bool:
    """Whether both are tables of this shape with the same values, whatever a zero's sign."""
    if {embedding.shape, head.shape} != {shape}:
        return False
    if not {embedding.dtype, head.dtype} <= set(WEIGHT_DTYPES):
        return False
    return all(
        np.array_equal(_widened(opened, embedding, low, high), _widened(opened, head, low, high))
        for low, high in row_bands(*shape)
    )


def _widened(opened: Opened, tensor: SafetensorsTensor, first: int, last: int) -> Floats:
    return widen(read_rows(opened[tensor.path], tensor, first, last), tensor.dtype)
