"""`inspect`: what any checkpoint or artifact holds, whoever made it."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from phiquant.errors import ArtifactError, InputError
from phiquant.evaluation.manifest import Manifest, read_manifest
from phiquant.evaluation.opening import artifacts_in
from phiquant.evaluation.size import bytes_on_disk
from phiquant.host.kinds import PLACE
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.model_name import read_model_name
from phiquant.phi.source import locate
from phiquant.targets.table import targets
from phiquant.targets.target import StoredEntry


@dataclass(frozen=True, slots=True)
class TypeShare:
    """All tensors of one stored type."""

    type: str
    tensors: int
    weights: int
    nbytes: int
    share: float
    """Of all bytes of tensors."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a path holds."""

    path: Path
    format: str
    """Either "checkpoint" or the runtime whose format it is ("llama.cpp")."""
    type: str
    """The precision as the files state it ("Q4_K_M", "BF16")."""
    architecture: Architecture
    entries: tuple[StoredEntry, ...]
    disk: int
    """Bytes of all files."""
    record: Manifest | None
    """Where it came from and what it lost, if phiquant made it."""
    notes: tuple[str, ...] = ()
    """How a checkpoint was read where that is not plain."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def weights(self) -> int:
        """Weights of the network, a tied head counted once."""
        return sum(prod(weight.shape) for weight in self.architecture.weights())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of the network."""
        return 8 * self.nbytes / self.weights

    @property
    def histogram(self) -> tuple[TypeShare, ...]:
        """The stored types, those with most bytes first."""
        return _histogram(self.entries)

    def as_json(self) -> dict[str, Any]:
        """The whole inspection for machines."""
        return {
            "path": str(self.path),
            "format": self.format,
            "type": self.type,
            "architecture": asdict(self.architecture),
            "disk": self.disk,
            "nbytes": self.nbytes,
            "weights": self.weights,
            "bits_per_weight": self.bits_per_weight,
            "types": [asdict(share) for share in self.histogram],
            "notes": list(self.notes),
            "tensors": [asdict(entry) for entry in self.entries],
            "record": self.record.as_json() if self.record else None,
        }


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Look at a checkpoint or an artifact; reads headers only.

    `path` is a directory or a file, or a model's name as in `phi.model_name`; a model on the hub is
    fetched. Raises ArtifactError or CheckpointError for files that are broken, or no Phi model's,
    InputError where nothing is there.
    """
    PLACE.check(path=path)
    path = _place(path)
    record = read_manifest(path) if path.is_dir() else None
    for target in targets():
        if target.recognises(path):
            artifact = target.open(path)
            return Inspection(
                path=path,
                format=target.title,
                type=artifact.type,
                architecture=artifact.architecture,
                entries=artifact.entries(),
                disk=bytes_on_disk(path),
                record=record,
            )
    if path.is_dir() and (path / "config.json").is_file():
        return _inspect_checkpoint(path)
    known = ", ".join(target.title for target in targets())
    raise ArtifactError(
        f"{path} is neither a checkpoint (config.json and *.safetensors) nor an artifact of a "
        f"known runtime ({known}){artifacts_in(path)}"
    )


def _place(path: str | os.PathLike[str]) -> Path:
    if Path(path).exists():
        return Path(path)
    try:
        read_model_name(path)
    except InputError as error:
        raise InputError(
            f"expected a checkpoint or an artifact at {path}, found nothing; give a directory, a "
            "model file, a Hugging Face id, or the address of its page"
        ) from error
    return locate(path).directory


def _inspect_checkpoint(path: Path) -> Inspection:
    checkpoint = Checkpoint.open(path)
    entries = (
        StoredEntry(tensor.name, tensor.shape, tensor.dtype, tensor.nbytes)
        for tensor in checkpoint.tensors.values()
    )
    return Inspection(
        path=path,
        format="checkpoint",
        type=checkpoint.dtype,
        architecture=checkpoint.architecture,
        entries=tuple(entries),
        disk=bytes_on_disk(path),
        record=None,
        notes=checkpoint.notes,
    )


def _histogram(entries: Iterable[StoredEntry]) -> tuple[TypeShare, ...]:
    kinds: dict[str, list[StoredEntry]] = {}
    for entry in entries:
        kinds.setdefault(entry.type, []).append(entry)
    total = sum(entry.nbytes for same in kinds.values() for entry in same)
    shares = [
        TypeShare(
            type=kind,
            tensors=len(same),
            weights=sum(prod(entry.shape) for entry in same),
            nbytes=sum(entry.nbytes for entry in same),
            share=sum(entry.nbytes for entry in same) / max(total, 1),
        )
        for kind, same in kinds.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.nbytes))
