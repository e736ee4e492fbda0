"""A weight as it lies in the checkpoint's files: one tensor, or several, one above another.

A network may know as one matrix what a checkpoint stores as several: queries, keys and values of
a Phi that was saved as a Llama, for instance.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phiquant.errors import CheckpointError
from phiquant.host.opened_file import OpenedFile
from phiquant.phi.network.parts import Network
from phiquant.phi.safetensors_file import SafetensorsTensor, read_elements
from phiquant.phi.weights import rows_from

Opened = Mapping[Path, OpenedFile]
Raw = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight by the architecture's name; `tensors` are of one element type and row length."""

    name: str
    tensors: tuple[SafetensorsTensor, ...]

    @property
    def dtype(self) -> str:
        """The element type, as safetensors calls it."""
        return self.tensors[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns); of a vector, (rows,)."""
        rows = sum(tensor.shape[0] for tensor in self.tensors)
        return (rows, *self.tensors[0].shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes in the files."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def read_ahead(self, opened: Opened) -> None:
        """Ask the system to fetch the weight's bytes."""
        for tensor in self.tensors:
            opened[tensor.path].read_ahead(tensor.offset, tensor.nbytes)

    def elements(self, opened: Opened, first: int, last: int) -> Raw:
        """Elements `first` to `last` (exclusive) in row-major order, as they are stored.

        Raises a file's error where it is shorter by now.
        """
        counts = [math.prod(tensor.shape) for tensor in self.tensors]
        pieces = [
            read_elements(opened[self.tensors[at].path], self.tensors[at], low, high)
            for at, low, high in rows_from(counts, first, last)
        ]
        if not pieces:
            return read_elements(opened[self.tensors[0].path], self.tensors[0], 0, 0)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def rows(self, opened: Opened, first: int = 0, last: int | None = None) -> Raw:
        """Rows `first` to `last` (exclusive; as a slice takes them), as they are stored.

        Shape (rows, ...); of a vector, (rows,). Raises as `elements` does.
        """
        count, *inner = self.shape
        start, stop, _ = slice(first, last).indices(count)
        size, stop = math.prod(inner), max(start, stop)
        return self.elements(opened, start * size, stop * size).reshape(stop - start, *inner)


def stored_shapes(network: Network, *, apart: bool) -> dict[str, tuple[int, ...]]:
    """The tensors that a checkpoint of the network has: name → shape.

    With `apart`, the parts of its fused matrices are tensors of their own.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for weight in network.weights:
        layer = network.linear.get(weight.name) if apart else None
        if layer is None:
            shapes[weight.name] = weight.shape
        else:
            shapes |= {part.name: (part.rows, layer.columns) for part in layer.parts}
    return shapes


def stored_weights(
    network: Network, tensors: Mapping[str, SafetensorsTensor]
) -> Iterator[StoredWeight]:
    """The network's weights in the order of `tensors`, which are all that it has.

    Raises CheckpointError where the parts of one matrix have different element types.
    """
    wholes = {part.name: layer for layer in network.linear.values() for part in layer.parts}
    done = set()
    for name, tensor in tensors.items():
        layer = wholes.get(name)
        if layer is None or len(layer.parts) == 1:
            yield StoredWeight(name, (tensor,))
        elif layer.weight.name not in done:
            done.add(layer.weight.name)
            parts = tuple(tensors[part.name] for part in layer.parts)
            if len({part.dtype for part in parts}) > 1:
                told = ", ".join(f"{part.name} ({part.dtype})" for part in parts)
                raise CheckpointError(
                    f"{told} are parts of one matrix and of different types; save the checkpoint "
                    "in one type"
                )
            yield StoredWeight(layer.weight.name, parts)
