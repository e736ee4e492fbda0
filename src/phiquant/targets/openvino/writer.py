"""`OpenVinoWriter`: a directory that openvino_genai and optimum-intel load, filled band by band.

Everything that can be refused is refused on construction: the graph is built, its text laid out,
the tokenizer made and proved. Then openvino_model.bin stands at its full size and every band goes
to its place.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import Parts
from phiquant.quantization.nibbles import pack_run
from phiquant.targets.openvino.form import OpenVinoForm
from phiquant.targets.openvino.graph import build_graph
from phiquant.targets.openvino.ir import arrange, serialize
from phiquant.targets.openvino.parts import StoredConstant
from phiquant.targets.openvino.running import MAKER
from phiquant.targets.openvino.text_files import text_files
from phiquant.targets.openvino.tokenizer_ir import proved_tokenizer
from phiquant.targets.streamed_file import StreamedFile

MODEL = "openvino_model"


class OpenVinoWriter:
    """Writes the artifact that `plan` describes into the existing `directory`.

    Raises TokenizerError or MissingDependency on construction, OSError when a disk is full.
    """

    def __init__(
        self, plan: Plan, checkpoint: Checkpoint, form: OpenVinoForm, directory: Path
    ) -> None:
        architecture = checkpoint.architecture
        tokenizer = checkpoint.tokenizer
        self._directory = directory
        self._files = text_files(form, checkpoint, tokenizer)
        self._tokenizer = checkpoint.once(proved_tokenizer)
        graph = build_graph(plan, architecture)
        for name, value in form.hints.items():
            graph.model.set_rt_info(value, ["runtime_options", name])
        for name, value in (("type", form.type), ("device", form.device)):
            graph.model.set_rt_info(value, [MAKER, name])
        self._layout = arrange(graph)
        self._binary: StreamedFile | None = None
        self._zeros: dict[str, npt.NDArray[np.uint8]] = {}

    def __enter__(self) -> Self:
        path = self._directory / f"{MODEL}.bin"
        self._binary = StreamedFile(path, self._layout.head, self._layout.nbytes)
        return self

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """Store the parts of `row` for the tensor's rows from `first` on."""
        assert self._binary is not None
        for name, array in parts.items():
            stored, offset = self._layout.parts[StoredConstant(row.output, name, "", ()).name]
            if stored.element_type == "u4" and name == "zero_point":
                self._gather(stored, offset, first, array)
                continue
            start = first * (stored.nbytes // row.shape[0]) if len(row.shape) == 2 else 0
            assert start + array.nbytes <= stored.nbytes, (stored, first, array.shape)
            self._binary.put(offset + start, array)

    @property
    def hashes(self) -> dict[str, str]:
        """BLAKE3 of the file with the tensors, by its name."""
        assert self._binary is not None
        return {self._binary.path.name: self._binary.hash}

    def _gather(
        self, stored: StoredConstant, offset: int, first: int, array: npt.NDArray[np.generic]
    ) -> None:
        """Keep 4-bit zero points until all rows are there: rows may share bytes."""
        assert self._binary is not None
        rows, groups, _ = (*stored.shape, 1)[:3] if len(stored.shape) == 2 else stored.shape
        # 255 is none of the sixteen zero points.
        whole = self._zeros.setdefault(stored.name, np.full((rows, groups), 255, np.uint8))
        whole[first : first + len(array)] = array
        if whole.max() < 255:
            packed = pack_run(self._zeros.pop(stored.name))
            self._binary.put(offset, packed)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._binary is not None
        with self._binary:
            if kind is None:
                self._write_text()

    def _write_text(self) -> None:
        for name, model in (
            ("openvino_tokenizer", self._tokenizer.tokenizer),
            ("openvino_detokenizer", self._tokenizer.detokenizer),
        ):
            serialize(model, self._directory / name)
        for name, content in (self._files | {f"{MODEL}.xml": self._layout.xml}).items():
            with (self._directory / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
