"""Writing a GGUF file: the header first, then bands of tensors in any order at their places.

The `gguf` package lays out fields and tensor infos; the data is written around it, so that no
tensor need be whole in memory. Every tensor starts at a multiple of 32 bytes; what lies between
is zero. The same plan, checkpoint and weights give the same bytes.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from phiquant.errors import MissingDependency
from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import Floats, Parts
from phiquant.targets.gguf.authorship import general_fields, model_title
from phiquant.targets.gguf.file import ALIGNMENT
from phiquant.targets.gguf.metadata import ARCHITECTURE, dimension_fields
from phiquant.targets.gguf.mixtures import MIXTURES
from phiquant.targets.gguf.tensors import LONG_FACTORS, SHORT_FACTORS
from phiquant.targets.gguf.vocabulary import vocabulary_of
from phiquant.targets.gguf.white_space import fitted_name
from phiquant.targets.streamed_file import StreamedFile

if TYPE_CHECKING:
    from gguf import GGUFWriter


def open_writer(plan: Plan, checkpoint: Checkpoint, directory: Path) -> "GgufWriter":
    """A writer for `plan` into `<model>-<type>.gguf` in `directory`.

    Raises TokenizerError for a vocabulary that llama.cpp cannot represent. LongRoPE's factors
    are written at once; the caller brings the rows that have a source.
    """
    architecture = checkpoint.architecture
    tokenizer = checkpoint.tokenizer
    words = checkpoint.once(vocabulary_of)
    fields: dict[str, object] = {
        "general.type": "model",
        "general.name": fitted_name(model_title(checkpoint), tokenizer),
        **general_fields(checkpoint),
        "general.file_type": MIXTURES[plan.type].file_type,
        **dimension_fields(architecture),
        **dict(words.entries),
    }
    writer = GgufWriter(directory / file_name(checkpoint.name, plan.type), plan, fields)
    for output, factors in _factors(architecture).items():
        row = next(row for row in plan.rows if row.output == output)
        writer.write(row, 0, {"data": factors})
    return writer


def file_name(model: str, type: str) -> str:
    """The file's name as people expect it: "phi-4-mini-instruct-Q4_K_M.gguf"."""
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model) or 'model'}-{type}.gguf"


class GgufWriter:
    """One GGUF file in the making. See `targets.target.Writer`."""

    def __init__(self, path: Path, plan: Plan, fields: Mapping[str, object]) -> None:
        header = _header(plan, fields, path.parent)
        self._places: dict[str, int] = {}
        end = len(header)
        for row in plan.rows:
            self._places[row.output] = end
            end += _aligned(row.nbytes)
        self._file = StreamedFile(path, header, end)

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """Store the one part of `row`, for the tensor's rows from `first` on."""
        (part,) = parts.values()
        row_nbytes = row.nbytes // row.shape[0]
        self._file.put(self._places[row.output] + first * row_nbytes, part)

    @property
    def hashes(self) -> dict[str, str]:
        """BLAKE3 of the file with the tensors, by its name."""
        return {self._file.path.name: self._file.hash}

    def __enter__(self) -> Self:
        self._file.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.__exit__(kind, error, trace)


def _header(plan: Plan, fields: Mapping[str, object], directory: Path) -> bytes:
    """Everything before the tensor data, padded to the alignment.

    The `gguf` package writes to files only; one in `directory` is made and removed.
    """
    try:
        from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter
    except ImportError as error:
        raise MissingDependency("gguf", "writing GGUF files") from error
    writer = GGUFWriter(None, ARCHITECTURE)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, value in fields.items():
        _add(writer, key, value)
    for row in plan.rows:
        writer.add_tensor_info(
            row.output,
            row.shape,
            np.dtype(np.float32),
            row.nbytes,
            GGMLQuantizationType[row.grid],
        )
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        path = Path(scratch) / "header.gguf"
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    return header.ljust(_aligned(len(header)), b"\0")


def _add(writer: "GGUFWriter", key: str, value: object) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list() | tuple():
            writer.add_array(key, value)
        case _:
            raise AssertionError(f"{key}: GGUF has no {type(value).__name__}")


def _factors(architecture: Architecture) -> dict[str, Floats]:
    long = architecture.rope.long
    if long is None:
        return {}
    return {
        LONG_FACTORS: np.array(long.long_factors, np.float32),
        SHORT_FACTORS: np.array(long.short_factors, np.float32),
    }


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
