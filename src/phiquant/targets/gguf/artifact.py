"""A GGUF artifact opened for reading, whoever made it: what is stored, decoded exactly."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from phiquant.errors import ArtifactError
from phiquant.host.opened_file import read_at
from phiquant.host.shown import shown
from phiquant.phi.architecture import Architecture
from phiquant.quantization.grid import Floats
from phiquant.targets.gguf.file import GgufTensor, read_gguf
from phiquant.targets.gguf.grids import GRIDS
from phiquant.targets.gguf.locate import gguf_files
from phiquant.targets.gguf.metadata import ARCHITECTURE, read_dimensions
from phiquant.targets.gguf.mixtures import MIXTURES
from phiquant.targets.gguf.tensors import (
    LONG_FACTORS,
    SHORT_FACTORS,
    tensor_name,
    tensor_name_of,
)
from phiquant.targets.target import StoredEntry

MOST_FACTORS = 1 << 16
"""Of LongRoPE: half as many as a head has values."""


class GgufArtifact:
    """See `targets.target.Artifact`. Opening reads headers only."""

    def __init__(self, path: Path) -> None:
        """Open the file at `path` or in the directory `path`. Raises ArtifactError."""
        self.path = path if path.is_dir() else path.parent
        files = gguf_files(path)
        # A single file that a person names may be a link to anywhere.
        home = None if files == (path,) else self.path
        parts = [read_gguf(file, home=home) for file in files]
        self.files = tuple(part.path for part in parts)
        self.fields: Mapping[str, object] = parts[0].fields
        """The key-value fields; of a split model, those of its first file."""
        self._tensors: dict[str, GgufTensor] = {}
        for part in parts:
            for tensor in part.tensors:
                if tensor.name in self._tensors:
                    raise ArtifactError(f"{tensor.name} is in more than one file of {path}")
                self._tensors[tensor.name] = tensor

    @cached_property
    def type(self) -> str:
        """The mixture's name by `general.file_type`, "unknown" if the file does not tell."""
        number = self.fields.get("general.file_type")
        names = [name for name, mixture in MIXTURES.items() if mixture.file_type == number]
        return names[0] if names else "unknown"

    def entries(self) -> tuple[StoredEntry, ...]:
        """Every stored tensor, in the file's order."""
        return tuple(
            StoredEntry(tensor.name, tensor.shape, tensor.type, tensor.nbytes)
            for tensor in self._tensors.values()
        )

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of the tensor for the checkpoint's weight `name`; a vector is returned whole
        in its own shape. Raises ArtifactError if it is absent or its type cannot be decoded.
        """
        stored = tensor_name_of(name)
        if stored is None or stored not in self._tensors:
            raise ArtifactError(f"there is no tensor for {name} in {self.files[0].name}")
        return self._decoded(self._tensors[stored], first, last)

    @cached_property
    def architecture(self) -> Architecture:
        """The dimensions by the file's own fields. Raises ArtifactError if it is no phi3."""
        name = self.fields.get("general.architecture")
        if name != ARCHITECTURE:
            raise ArtifactError(
                f"expected the architecture {ARCHITECTURE!r} in {self.files[0].name}, "
                f"found {shown(name)}; only Phi-3 style models can be read"
            )
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None or len(embedding.shape) != 2:
            raise ArtifactError(f"{self.files[0].name} has no token_embd.weight matrix")
        architecture = read_dimensions(
            self.fields,
            vocabulary_size=embedding.shape[0],
            tied_head="output.weight" not in self._tensors,
            factors=self._factors(),
        )
        self._check_shapes(architecture)
        return architecture

    def _check_shapes(self, architecture: Architecture) -> None:
        """ArtifactError for a tensor of another shape than the fields give it."""
        for weight in architecture.weights():
            tensor = self._tensors.get(tensor_name(weight))
            if tensor is not None and tensor.shape != weight.shape:
                raise ArtifactError(
                    f"{tensor.name} has the shape {list(tensor.shape)}, and the fields of "
                    f"{self.files[0].name} give it {list(weight.shape)}"
                )

    def _factors(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        short, long = (self._list(name) for name in (SHORT_FACTORS, LONG_FACTORS))
        return (short, long) if short or long else None

    def _list(self, name: str) -> tuple[float, ...]:
        """The values of a short tensor; none if there is no such tensor."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return ()
        if len(tensor.shape) != 1 or tensor.shape[0] > MOST_FACTORS:
            raise ArtifactError(f"expected a list of factors in {name}, found {list(tensor.shape)}")
        return tuple(self._decoded(tensor).tolist())

    def _decoded(self, tensor: GgufTensor, first: int = 0, last: int | None = None) -> Floats:
        grid = GRIDS.get(tensor.type)
        if grid is None:
            raise ArtifactError(
                f"{tensor.name} is stored as {tensor.type}, which cannot be decoded here; "
                f"known are: {', '.join(GRIDS)}"
            )
        rows, columns = _as_matrix(tensor.shape)
        start, stop, _ = slice(first, last).indices(rows)
        count = max(stop - start, 0)
        row_nbytes = tensor.nbytes // rows
        begin = tensor.offset + start * row_nbytes
        stored = read_at(tensor.path, begin, count * row_nbytes, ArtifactError)
        ((name, layout),) = grid.layout((count, columns)).items()
        part = stored.view(layout.dtype).reshape(layout.shape)
        weights = grid.decode({name: part}, columns)
        return weights.reshape(tensor.shape) if len(tensor.shape) == 1 else weights


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """A vector is one row."""
    if len(shape) > 2:
        raise ArtifactError(f"expected a matrix or a vector, found a tensor of shape {list(shape)}")
    return (1, shape[0]) if len(shape) == 1 else (shape[0], shape[1])
