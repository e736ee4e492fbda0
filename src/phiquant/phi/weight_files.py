"""Which files of a directory hold the model's weights.

The choice is that of transformers' `from_pretrained`: the file that `transformers_weights` in
config.json names; else `model.safetensors`; else the files that the index names. Only a directory
that has none of these is read whole, without adapters. What lies beside the chosen files is no
part of the model, and a note says so.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.errors import CheckpointError
from phiquant.host import foreign
from phiquant.phi.listed import listed
from phiquant.phi.lora.names import GIVE, is_adapter_file
from phiquant.phi.safetensors_file import SafetensorsTensor, read_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
MOST_FILES = 10_000
"""Of one model."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files to read, and the index that they were named by, if one was followed."""

    directory: Path
    paths: tuple[Path, ...]
    index: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Which weights in the directory were not read, in a sentence; empty if all were."""
        taken = {path.name for path in self.paths}
        beside = [path.name for path in _tensor_files(self.directory) if path.name not in taken]
        index = self.directory / INDEX
        if self.index is None and foreign.present(index) and beside:
            beside.insert(0, INDEX)
        if not beside:
            return ()
        source = f"the {len(self.paths)} files that {self.index.name} names" if self.index else None
        source = source or listed([path.name for path in self.paths])
        note = f"the weights are those of {source}; beside them, and not read: {listed(beside)}"
        if any(is_adapter_file(name) for name in beside):
            note += "; an adapter has to be merged into the model to become part of an artifact"
        return (note,)


def find_weight_files(directory: Path, config: Mapping[str, Any]) -> WeightFiles:
    """The files with the weights of the model in `directory`.

    Raises CheckpointError where files are missing, and where only pickled weights or an adapter
    are there.
    """
    named = config.get("transformers_weights")
    if isinstance(named, str):
        return _named(directory, named)
    if foreign.present(directory / SINGLE):
        return WeightFiles(directory, (directory / SINGLE,))
    if foreign.present(directory / INDEX):
        return _indexed(directory, directory / INDEX)
    files = [path for path in _tensor_files(directory) if not is_adapter_file(path.name)]
    if not files:
        raise CheckpointError(_without_weights(directory))
    _check_shards(files)
    return WeightFiles(directory, tuple(files))


def read_tensors(files: WeightFiles) -> tuple[SafetensorsTensor, ...]:
    """The tensors of all files, in the order of the files.

    Raises CheckpointError for a file that is not sound, a tensor in two files, and an index that
    says otherwise than the files.
    """
    stored = [tensor for path in files.paths for tensor in read_header(path, files.directory)]
    places = _places(stored)
    if files.index is not None:
        expected = _weight_map(files.index)
        names = sorted(expected.keys() | places.keys())
        wrong = [name for name in names if expected.get(name) != places.get(name)]
        if wrong:
            raise CheckpointError(
                f"the shards disagree with {files.index.name} about {listed(wrong)}; "
                "download both again"
            )
    return tuple(stored)


def _tensor_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _named(directory: Path, name: str) -> WeightFiles:
    path = directory / name
    if not foreign.is_plain_name(name) or not foreign.present(path):
        raise CheckpointError(
            f"transformers_weights in config.json names {name!r}, and {directory} has no such "
            "file; download it, or take the field out"
        )
    return _indexed(directory, path) if name.endswith(".json") else WeightFiles(directory, (path,))


def _indexed(directory: Path, index: Path) -> WeightFiles:
    names = sorted(set(_weight_map(index).values()))
    if not 1 <= len(names) <= MOST_FILES:
        raise CheckpointError(
            f"{index.name} names {len(names) or 'no'} files, expected 1 to {MOST_FILES}; download "
            "it again"
        )
    missing = [name for name in names if not foreign.present(directory / name)]
    if missing:
        raise CheckpointError(
            f"{index.name} names {listed(missing)}, not in {directory}; download what is missing"
        )
    return WeightFiles(directory, tuple(directory / name for name in names), index)


def _without_weights(directory: Path) -> str:
    """Why no weights can be read from `directory`, and what to do."""
    adapters = [path.name for path in _tensor_files(directory)]
    if adapters:
        return f"{directory} holds an adapter ({listed(adapters)}) without its base model; {GIVE}"
    pickled = sorted(path.name for pattern in PICKLED for path in directory.glob(pattern))
    if pickled:
        return (
            f"found only pickled weights ({listed(pickled)}), which can run code when loaded; "
            "use the model's safetensors files, or convert them first with transformers' "
            "save_pretrained(safe_serialization=True) in an environment you can throw away"
        )
    return f"found a config.json but no *.safetensors file in {directory}"


def _check_shards(files: Sequence[Path]) -> None:
    """Raise CheckpointError if files that are numbered are not all there."""
    sets: dict[tuple[str, str], set[int]] = {}
    for path in files:
        if (match := SHARD.fullmatch(path.name)) is not None:
            sets.setdefault((match[1], match[3]), set()).add(int(match[2]))
    for (stem, count), numbers in sets.items():
        absent = (number for number in range(1, int(count) + 1) if number not in numbers)
        first = next(absent, None)
        if first is not None:
            raise CheckpointError(
                f"{len(numbers)} of {int(count)} shards are in the directory; "
                f"{stem}-{first:0{len(count)}}-of-{count}.safetensors is missing: download the rest"
            )


def _weight_map(index: Path) -> dict[str, str]:
    mapping = foreign.read_object(index, foreign.WEIGHT_INDEX, index.parent).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(v, str) for v in mapping.values()):
        raise CheckpointError(f"{index.name}: weight_map should map tensor names to file names")
    outside = [name for name in set(mapping.values()) if not foreign.is_plain_name(name)]
    if outside:
        raise CheckpointError(f"{index.name} names files outside its directory: {listed(outside)}")
    return mapping


def _places(stored: Iterable[SafetensorsTensor]) -> dict[str, str]:
    """The file of every tensor, by its name. Raises CheckpointError for a tensor in two files."""
    places: dict[str, str] = {}
    for tensor in stored:
        if tensor.name in places:
            raise CheckpointError(
                f"{tensor.name} is in both {places[tensor.name]} and {tensor.path.name}; "
                "remove the files that do not belong to this checkpoint"
            )
        places[tensor.name] = tensor.path.name
    return places
