"""`OnnxWriter`: a directory that onnxruntime-genai loads, filled band by band.

The graph and the plan fix every byte's place; so everything that can be refused is refused on
construction, the external data stand at their full size on entering, and each band of rows goes
to its place: by one write where rows lie one after another, and through a mapping of the file
where the matrix is stored transposed.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.documents import read_document
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.floats import FLOAT_TYPES, cast
from phiquant.quantization.grid import Grid, Parts
from phiquant.targets.client_config import client_config
from phiquant.targets.onnx.decoder import build
from phiquant.targets.onnx.external import FILE, Entry, arrange
from phiquant.targets.onnx.formats import GRIDS, OnnxForm
from phiquant.targets.onnx.genai_config import genai_config
from phiquant.targets.onnx.graph import DATA_TYPES, GraphBuilder, typed
from phiquant.targets.onnx.grids import BlockwiseGrid, unpack_codes
from phiquant.targets.onnx.matrices import StoredForms
from phiquant.targets.onnx.rotary import cache_bands
from phiquant.targets.onnx.tokenizer_text import onnx_tokenizer_files
from phiquant.targets.onnx.transposed import MappedFile
from phiquant.targets.streamed_file import StreamedFile
from phiquant.targets.tokenizer_files import json_file

ARCHITECTURE_KEY = "phiquant.architecture"


class OnnxWriter:
    """Writes the artifact that `plan` describes into the existing `directory`.

    Raises TokenizerError or ConfigError on construction, OSError when a disk is full.
    """

    def __init__(self, plan: Plan, checkpoint: Checkpoint, form: OnnxForm, directory: Path) -> None:
        self._architecture = checkpoint.architecture
        self._directory = directory
        self._activations = form.activations
        tokenizer = onnx_tokenizer_files(checkpoint)
        self._layout = StoredForms(form, self._architecture.tied_head)
        wanted = [tensor for row in plan.rows for tensor in self._layout.wanted(row)]
        self._entries, self._size = arrange(wanted)
        builder = GraphBuilder(self._entries, DATA_TYPES[form.activations])
        build(builder, plan, self._architecture, form)
        model = builder.model({ARCHITECTURE_KEY: json.dumps(asdict(self._architecture))})
        generation = read_document(checkpoint.directory / "generation_config.json")
        self._files = {
            "model.onnx": typed(model).SerializeToString(),
            "genai_config.json": genai_config(
                self._architecture, form, tokenizer.special, generation
            ),
            "config.json": json_file(client_config(checkpoint)),
            **tokenizer.files,
        }
        self._file: StreamedFile | None = None
        self._mapped: MappedFile | None = None

    def __enter__(self) -> Self:
        path = self._directory / FILE
        self._file = StreamedFile(path, b"", self._size)
        if any(entry.transposed for entry in self._entries.values()):
            self._mapped = MappedFile(self._file.map())
        return self

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """Store the parts of `row` for the tensor's rows from `first` on."""
        grid = GRIDS[row.grid]
        for part, array in parts.items():
            entry = self._entries[f"{row.output}.{part}"]
            standard = isinstance(grid, BlockwiseGrid) and not self._layout.as_nbits(row)
            elements = _elements(array, part, grid, row.shape[1]) if standard else array
            self._put(entry, first, elements)

    @property
    def hashes(self) -> dict[str, str]:
        """BLAKE3 of the file with the tensors, by its name."""
        assert self._file is not None
        return {self._file.path.name: self._file.hash}

    def _put(self, entry: Entry, first: int, array: npt.NDArray[np.generic]) -> None:
        assert self._file is not None
        if entry.transposed:
            assert self._mapped is not None
            self._mapped.put(entry, first, array)
        else:
            row_bytes = entry.nbytes // entry.shape[0]
            assert first * row_bytes + array.nbytes <= entry.nbytes, (entry.name, first)
            self._file.put(entry.offset + first * row_bytes, array)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with self._file:
            if kind is None:
                self._write_caches()
                self._write_text()
            if self._mapped is not None:
                self._mapped.flush()
                self._mapped = None

    def _write_caches(self) -> None:
        kind = FLOAT_TYPES[self._activations]
        for first, band in cache_bands(self._architecture):
            self._put(self._entries["cos_cache.weight"], first, cast(band.cos, kind))
            self._put(self._entries["sin_cache.weight"], first, cast(band.sin, kind))

    def _write_text(self) -> None:
        for name, content in self._files.items():
            with (self._directory / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())


def _elements(
    array: npt.NDArray[np.generic], part: str, grid: Grid, columns: int
) -> npt.NDArray[np.generic]:
    """One element a code, as DequantizeLinear takes them: signed without zero points."""
    assert isinstance(grid, BlockwiseGrid)
    if part == "scales":
        return array
    width = columns if part == "weight" else columns // grid.block
    codes = unpack_codes(array.reshape(len(array), -1), grid.bits, width)
    if grid.symmetric:
        return (codes - grid.middle).astype(np.int8)
    return codes.astype(np.uint8)
