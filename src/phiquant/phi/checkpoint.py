"""A Phi checkpoint on disk: validated on opening, mapped, read a band of rows at a time.

Opening reads headers only. Every way in which the files can disagree with the configuration or
with one another ends in one CheckpointError that names the tensors.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from phiquant.errors import CheckpointError
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import read_architecture, read_config
from phiquant.phi.safetensors_file import (
    SafetensorsTensor,
    map_file,
    read_ahead,
    read_header,
    tensor_view,
)
from phiquant.phi.tokenizer.tokenizer import Tokenizer, read_tokenizer
from phiquant.phi.widen import widen

INDEX = "model.safetensors.index.json"
WEIGHT_DTYPES = ("BF16", "F16", "F32")
Made = TypeVar("Made")

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `tensors` is in file order: the order that reads fastest."""

    directory: Path
    name: str
    """What the model is called, for file names and cards."""
    config: Mapping[str, Any]
    architecture: Architecture
    tensors: Mapping[str, SafetensorsTensor]
    mapped: Mapping[Path, npt.NDArray[np.uint8]] = field(repr=False, compare=False)
    """The weight files, each mapped once: pages that were seen stay within reach."""
    _made: dict[Callable[..., object], object] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def open(cls, directory: Path, name: str | None = None) -> Self:
        """Open and check the checkpoint in `directory`, called `name` or as the directory is.

        Raises ConfigError or CheckpointError; see the modules `config` and `safetensors_file`.
        """
        if not directory.is_dir():
            raise CheckpointError(
                f"expected a checkpoint directory at {directory}, found "
                f"{'a file' if directory.exists() else 'nothing'}"
            )
        config = read_config(directory)
        architecture = read_architecture(config)
        stored = [tensor for path in _weight_files(directory) for tensor in read_header(path)]
        _check_against_index(directory, stored)
        tensors = {tensor.name: tensor for tensor in stored}
        _check_against_architecture(architecture, tensors)
        mapped = {path: map_file(path) for path in {tensor.path for tensor in stored}}
        name = name or directory.resolve().name
        return cls(directory, name, config, architecture, tensors, mapped)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read once. Raises TokenizerError."""
        return read_tokenizer(self.directory, self.architecture.vocabulary_size)

    def once(self, make: Callable[[Self], Made]) -> Made:
        """What `make` makes of this checkpoint; it is called the first time only."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]  # type: ignore[return-value]

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, in order."""
        return tuple(dict.fromkeys(tensor.path for tensor in self.tensors.values()))

    @property
    def dtype(self) -> str:
        """The element type of most bytes: "BF16", "F16" or "F32"."""
        totals = dict.fromkeys(WEIGHT_DTYPES, 0)
        for tensor in self.tensors.values():
            totals[tensor.dtype] += tensor.nbytes
        return max(totals, key=totals.__getitem__)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def raw(self, name: str) -> npt.NDArray[np.generic]:
        """The mapped tensor in its stored element type (BF16 as uint16)."""
        tensor = self.tensors[name]
        return tensor_view(self.mapped[tensor.path], tensor)

    def read_ahead(self, name: str) -> None:
        """Ask the system to fetch the tensor's pages."""
        tensor = self.tensors[name]
        read_ahead(self.mapped[tensor.path], tensor)

    def weight(self, name: str, first: int = 0, last: int | None = None) -> npt.NDArray[np.float32]:
        """Rows `first` to `last` (exclusive) of the tensor, widened to float32, exactly."""
        return widen(self.raw(name)[first:last], self.tensors[name].dtype)


def _weight_files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        names = sorted(set(_weight_map(index).values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise CheckpointError(
                f"{INDEX} names {_listed(missing)}, not in {directory}; download what is missing"
            )
        return [directory / name for name in names]
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
    if pickled:
        raise CheckpointError(
            f"found only pickled weights ({_listed(pickled)}), which can run code when loaded; "
            "use the model's safetensors files, or convert them first with transformers' "
            "save_pretrained(safe_serialization=True) in an environment you can throw away"
        )
    raise CheckpointError(f"found a config.json but no *.safetensors file in {directory}")


def _weight_map(index: Path) -> dict[str, str]:
    try:
        mapping = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index.name} has no readable weight_map ({error})") from error
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise CheckpointError(f"{index.name}: weight_map should map tensor names to file names")
    outside = [name for name in mapping.values() if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index.name} names files outside its directory: {_listed(outside)}")
    return mapping


def _check_against_index(directory: Path, stored: Iterable[SafetensorsTensor]) -> None:
    places: dict[str, str] = {}
    for tensor in stored:
        if tensor.name in places:
            raise CheckpointError(
                f"{tensor.name} is in both {places[tensor.name]} and {tensor.path.name}; "
                "remove the files that do not belong to this checkpoint"
            )
        places[tensor.name] = tensor.path.name
    index = directory / INDEX
    if index.is_file():
        expected = _weight_map(index)
        wrong = sorted(
            name
            for name in expected.keys() | places.keys()
            if expected.get(name) != places.get(name)
        )
        if wrong:
            raise CheckpointError(
                f"the shards disagree with {INDEX} about {_listed(wrong)}; download both again"
            )


def _check_against_architecture(
    architecture: Architecture, tensors: Mapping[str, SafetensorsTensor]
) -> None:
    expected = {weight.name: weight for weight in architecture.weights()}
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    misshaped = [
        f"{name} (expected {list(expected[name].shape)}, found {list(tensor.shape)})"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    mistyped = [
        f"{name} ({tensor.dtype})"
        for name, tensor in tensors.items()
        if tensor.dtype not in WEIGHT_DTYPES
    ]
    faults = [
        f"{title}: {_listed(names)}"
        for title, names in (
            ("missing", missing),
            ("not part of the architecture", extra),
            ("misshaped", misshaped),
            (f"not one of {', '.join(WEIGHT_DTYPES)}", mistyped),
        )
        if names
    ]
    if faults:
        raise CheckpointError(f"the tensors are not what config.json promises: {'; '.join(faults)}")


def _listed(names: list[str], limit: int = 6) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
