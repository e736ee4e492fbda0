"""What llama.cpp's importance matrices say about a model, and what to tell them about one.

The mean square of an input channel is what `--quality balanced` weighs a column's errors by, in
every format; means, which few files have, are what it lets errors cancel by. A file that was made
elsewhere may be anyone's and for any model: its names and sizes must be this model's, its values
finite and such as they can be.

`llama-imatrix` leaves the head out unless it is told `--process-output`, and then calls a tied
one `token_embd.weight`; files of others have it as `output.weight`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from phiquant.errors import InputError
from phiquant.phi.architecture import Architecture
from phiquant.phi.listed import listed
from phiquant.phi.network.parts import Role, Weight
from phiquant.quantization.inputs import Inputs
from phiquant.targets.gguf.imatrix import read_imatrix, write_imatrix
from phiquant.targets.gguf.tensors import WHOLE_MODEL, tensor_name, tensor_name_of
from phiquant.targets.importance import ImatrixDataset, ImatrixEntry, Importance

SLACK = 1e-3
"""By how much a squared mean may exceed the mean square, by the rounding of sums."""


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
            f"{path} was made for another model: it has {listed(foreign)}, which this one has "
            "not; make one with llama-imatrix from this model's GGUF file, or with `imatrix.write`"
        )
    inputs: dict[str, Inputs] = {}
    absent: list[str] = []
    for weight in matrices:
        entry = _entry(entries, weight)
        if entry is None:
            absent.append(tensor_name(weight))
        else:
            inputs[weight.name] = _checked(path, weight, entry)
    if not inputs:
        raise InputError(f"{path} has nothing on any matrix of this model; make one over a text")
    return Importance(path.name, inputs, tuple(absent))


def write_importance(
    path: Path, entries: Mapping[str, ImatrixEntry], text: ImatrixDataset, suffix: str
) -> None:
    """Write `entries` by checkpoint name to `path` for llama.cpp; see `write_imatrix`."""
    named: dict[str, ImatrixEntry] = {}
    for name, entry in entries.items():
        stored = tensor_name_of(name)
        assert stored is not None
        named[stored] = entry
    write_imatrix(path, named, text, suffix)


def _has_inputs(weight: Weight, architecture: Architecture) -> bool:
    """Whether the weight is multiplied by something: a tied embedding is, as the head."""
    if weight.role is Role.EMBEDDING:
        return architecture.tied_head
    return not weight.role.is_norm


def _entry(entries: Mapping[str, ImatrixEntry], weight: Weight) -> ImatrixEntry | None:
    """The weight's entry, if it has seen anything."""
    names = [tensor_name(weight)]
    if weight.role is Role.EMBEDDING:
        names.append(WHOLE_MODEL[Role.HEAD])
    present = [entries[name] for name in names if name in entries and entries[name].count]
    return present[0] if present else None


def _checked(path: Path, weight: Weight, entry: ImatrixEntry) -> Inputs:
    columns, name = weight.shape[1], tensor_name(weight)
    if entry.sums.size != columns:
        raise InputError(
            f"{path} was made for another model: expected {columns} columns for {name}, found "
            f"{entry.sums.size}"
        )
    inputs = entry.inputs
    squares = np.ascontiguousarray(inputs.squares, np.float32)
    if not np.isfinite(squares).all() or squares.min() < 0:
        wrong = squares[~np.isfinite(squares) | (squares < 0)][0]
        raise InputError(
            f"expected finite squares of at least 0 for {name} in {path}, found {wrong}; the "
            "text it was made over made the model overflow, or the file is damaged"
        )
    if inputs.means is None:
        return Inputs(squares)
    means = np.ascontiguousarray(inputs.means, np.float32)
    if not (np.square(means) <= squares * np.float32(1 + SLACK)).all():  # also false for a NaN
        raise InputError(
            f"expected means of inputs that go with their mean squares for {name} in {path}, found "
            "larger ones; the file is damaged, make it anew"
        )
    return Inputs(squares, means)
