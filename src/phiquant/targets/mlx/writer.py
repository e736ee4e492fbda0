"""`MlxWriter`: a directory that mlx_lm loads, filled band by band.

Everything that can be refused is refused on construction; then the safetensors files stand at
their full size with their headers, and each band of rows goes to its place. See `shards` for the
files' layout, `model_config` for config.json, `tokenizer_files` for the rest.
"""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import Parts
from phiquant.targets.mlx.formats import DTYPE_NAMES, FLOATS, GRIDS, MlxForm, affine_type
from phiquant.targets.mlx.longrope import served_lengths
from phiquant.targets.mlx.model_config import artifact_config, quantization_entry
from phiquant.targets.mlx.planner import stored_as
from phiquant.targets.mlx.shards import INDEX, ShardTensor, arrange, index_json
from phiquant.targets.streamed_file import StreamedFile
from phiquant.targets.tokenizer_files import read_tokenizer_files


class MlxWriter:
    """Writes the artifact that `plan` describes into the existing `directory`.

    Raises TokenizerError or ConfigError on construction, OSError when a disk is full.
    """

    def __init__(self, plan: Plan, checkpoint: Checkpoint, form: MlxForm, directory: Path) -> None:
        architecture = checkpoint.architecture
        self._plan = plan
        self._directory = directory
        self._shards = arrange(plan, GRIDS)
        self._tokenizer = read_tokenizer_files(checkpoint)
        self._config = artifact_config(
            checkpoint.config,
            architecture,
            served_lengths(architecture, form.context),
            DTYPE_NAMES[FLOATS.get(plan.type, checkpoint.dtype)],
            self._tokenizer.ends,
        )
        kind = affine_type(plan.type)
        if kind is not None:
            matrices = [(row, stored_as(row)) for row in plan.rows if len(row.shape) == 2]
            entry = quantization_entry(kind, matrices)
            self._config |= {"quantization": entry, "quantization_config": entry}
        self._stack = ExitStack()
        self._places: dict[str, tuple[StreamedFile, ShardTensor]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            for shard in self._shards:
                path = self._directory / shard.file
                file = opened.enter_context(StreamedFile(path, shard.header, shard.nbytes))
                self._places |= {part.name: (file, part) for part in shard.parts}
            self._stack = opened.pop_all()
        return self

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """Store the parts of `row` for the tensor's rows from `first` on."""
        for name, array in parts.items():
            file, part = self._places[f"{row.output}.{name}"]
            assert array.dtype == part.layout.dtype, (part.name, array.dtype)
            start = first * part.row_bytes
            assert start + array.nbytes <= part.layout.nbytes, (part.name, first, array.shape)
            file.put(part.offset + start, array)

    @property
    def hashes(self) -> dict[str, str]:
        """BLAKE3 of the safetensors files, by name."""
        return {file.path.name: file.hash for file, _ in self._places.values()}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is None:
                self._write_text()

    def _write_text(self) -> None:
        config = json.dumps(dict(sorted(self._config.items())), indent=4)
        index = index_json(self._shards, self._plan.weights)
        files = {"config.json": f"{config}\n".encode(), INDEX: f"{index}\n".encode()}
        for name, content in (files | dict(self._tokenizer.files)).items():
            with (self._directory / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
