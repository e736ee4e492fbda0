"""Importance matrices: what a file says about a model's inputs, and what to put into one.

llama.cpp has files for them (`targets/gguf/importance.py`), which serve every target: the mean
square of an input channel weighs the errors of a column in whatever format.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phiquant.phi.architecture import Architecture
from phiquant.phi.listed import listed
from phiquant.quantization.grid import Floats
from phiquant.quantization.inputs import Inputs


@dataclass(frozen=True, slots=True)
class Importance:
    """What a file says about a model.

    `inputs` are by the matrix's checkpoint name; `absent` are the runtime's names of the matrices
    that the file has nothing on.
    """

    name: str
    inputs: Mapping[str, Inputs]
    absent: tuple[str, ...]

    @property
    def note(self) -> str:
        """For the plan: where the weighing came from, and which matrices went without."""
        told = f"Rounding errors are weighed by the importance matrix {self.name}"
        if not self.absent:
            return f"{told}."
        return f"{told}; it has nothing on {listed(self.absent)}, weighed alike there."


@dataclass(frozen=True, slots=True)
class ImatrixEntry:
    """One matrix: float32 sums of squares (columns,) over `count` tokens, or other units.

    `plain` are sums of the inputs themselves, where a file has them.
    """

    sums: Floats
    count: int
    plain: Floats | None = None

    @property
    def inputs(self) -> Inputs:
        """Mean squares, to the bit as llama-quantize computes them, and means."""
        count = np.float32(self.count)
        with np.errstate(all="ignore"):  # what a file by another hand holds is checked afterwards
            return Inputs(self.sums / count, None if self.plain is None else self.plain / count)


@dataclass(frozen=True, slots=True)
class ImatrixDataset:
    """What the sums were taken over: a name, and tokens in each of its chunks."""

    name: str
    chunk_size: int

    def chunks(self, count: int) -> int:
        """Chunks that hold `count` tokens; the last may not be full."""
        return -(-count // self.chunk_size)


@dataclass(frozen=True, slots=True)
class ImportanceFiles:
    """How a target reads and writes importance matrices."""

    read: Callable[[Path, Architecture], Importance]
    """What a file says about a model; InputError for one that is broken or another model's."""
    write: Callable[[Path, Mapping[str, ImatrixEntry], ImatrixDataset, str], None]
    """Write sums by checkpoint name to a file, in the encoding that its final suffix asks for."""
