"""What an artifact weighs."""

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path

from phiquant.phi.architecture import Architecture
from phiquant.targets.target import Artifact


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes on disk and bytes of tensors, and what that makes a weight."""

    disk: int
    """All files of the artifact: weights, metadata, tokenizer, card."""
    tensors: int
    weights: int
    """Weights of the network, a tied head counted once."""

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of the network, scales and offsets included."""
        return 8 * self.tensors / self.weights

    def as_json(self) -> dict[str, float]:
        """The sizes as they are recorded."""
        return asdict(self) | {"bits_per_weight": self.bits_per_weight}


def measure_size(path: Path, artifact: Artifact, architecture: Architecture) -> Size:
    """The size of the artifact at `path`, a file or a directory."""
    return Size(
        disk=bytes_on_disk(path),
        tensors=sum(entry.nbytes for entry in artifact.entries()),
        weights=sum(prod(weight.shape) for weight in architecture.weights()),
    )


def layer_bits(artifact: Artifact, architecture: Architecture) -> float:
    """Stored bits per weight of the layers' matrices, embedding and head left out.

    These two take a good part of a small model's bytes and often have more bits than the layers,
    which are what the loss comes from.
    """
    matrices = [
        entry
        for entry in artifact.entries()
        if len(entry.shape) > 1 and architecture.vocabulary_size not in entry.shape
    ]
    weights = sum(prod(entry.shape) for entry in matrices)
    return 8 * sum(entry.nbytes for entry in matrices) / weights if weights else 32.0


def bytes_on_disk(path: Path) -> int:
    """Bytes of the file, or of all files under the directory."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)
