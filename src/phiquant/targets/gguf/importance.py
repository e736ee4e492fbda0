"""What llama.cpp's importance matrices say about a model, and what to tell them about one.

The mean square of an input channel is what `--quality balanced` weighs a column's errors by, in
every format. A file that was made elsewhere may be anyone's and for any model: its names and
sizes must be this model's, its values finite and not negative.

`llama-imatrix` leaves the head out unless it is told `--process-output`, and then calls a tied
one `token_embd.weight`; files of others have it as `output.weight`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phiquant.errors import InputError
from phiquant.phi.architecture import Architecture, Role, Weight
from phiquant.quantization.grid import Floats
from phiquant.targets.gguf.imatrix import Entry, Text, read_imatrix, write_imatrix
from phiquant.targets.gguf.tensors import WHOLE_MODEL, tensor_name, tensor_name_of

NAMED = 3
"""Tensors that a message names before it counts the rest."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What a file says about a model.

    `means` are mean squares (columns,) by the matrix's checkpoint name; `absent` are llama.cpp's
    names of the matrices that the file has nothing on.
    """

    name: str
    means: Mapping[str, Floats]
    absent: tuple[str, ...]

    @property
    def note(self) -> str:
        """For the plan: where the weighing came from, and which matrices went without."""
        told = f"Rounding errors are weighed by the importance matrix {self.name}"
        if not self.absent:
            return f"{told}."
        return f"{told}; it has nothing on {_listed(self.absent)}, weighed alike there."


def read_importance(path: Path, architecture: Architecture) -> Importance:
    """What the file at `path` says about a model of `architecture`.

    Raises InputError for a file that is broken or was made for another model.
    """
    entries = read_imatrix(path)
    matrices = [weight for weight in architecture.weights() if _has_inputs(weight, architecture)]
    head = {WHOLE_MODEL[Role.EMBEDDING], WHOLE_MODEL[Role.HEAD]}
    foreign = sorted(entries.keys() - {tensor_name(weight) for weight in matrices} - head)
    if foreign:
        raise InputError(
            f"{path} was made for another model: it has {_listed(foreign)}, which this one has "
            "not; make one with llama-imatrix from this model's GGUF file, or with --imatrix-out"
        )
    means: dict[str, Floats] = {}
    absent: list[str] = []
    for weight in matrices:
        entry = _entry(entries, weight)
        if entry is None:
            absent.append(tensor_name(weight))
        else:
            means[weight.name] = _checked(path, weight, entry)
    if not means:
        raise InputError(f"{path} has nothing on any matrix of this model; make one over a text")
    return Importance(path.name, means, tuple(absent))


def write_importance(path: Path, entries: Mapping[str, Entry], text: Text) -> None:
    """Write `entries` by checkpoint name to `path` for llama.cpp; see `write_imatrix`."""
    named: dict[str, Entry] = {}
    for name, entry in entries.items():
        stored = tensor_name_of(name)
        assert stored is not None
        named[stored] = entry
    write_imatrix(path, named, text)


def _has_inputs(weight: Weight, architecture: Architecture) -> bool:
    """Whether the weight is multiplied by something: a tied embedding is, as the head."""
    if weight.role is Role.EMBEDDING:
        return architecture.tied_head
    return not weight.role.is_norm


def _entry(entries: Mapping[str, Entry], weight: Weight) -> Entry | None:
    """The weight's entry, if it has seen anything."""
    names = [tensor_name(weight)]
    if weight.role is Role.EMBEDDING:
        names.append(WHOLE_MODEL[Role.HEAD])
    found = [entries[name] for name in names if name in entries and entries[name].count]
    return found[0] if found else None


def _checked(path: Path, weight: Weight, entry: Entry) -> Floats:
    columns, name = weight.shape[1], tensor_name(weight)
    if entry.sums.size != columns:
        raise InputError(
            f"{path} was made for another model: expected {columns} columns for {name}, found "
            f"{entry.sums.size}"
        )
    means = np.ascontiguousarray(entry.means, np.float32)
    if not np.isfinite(means).all() or means.min() < 0:
        wrong = means[~np.isfinite(means) | (means < 0)][0]
        raise InputError(
            f"expected finite squares of at least 0 for {name} in {path}, found {wrong}; the "
            "text it was made over made the model overflow, or the file is damaged"
        )
    return means


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
