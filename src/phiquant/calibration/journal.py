"""What a calibrated run has rounded so far, on the disk: it outlives a killed job.

A directory of one array file a stored part, and `journal.json`, which is replaced after every
block of the network and says what is whole. Arrays are mapped, so that what was rounded an hour
ago takes no memory. The job's own pages reach the disk in their own time; a killed process loses
nothing, a power cut may lose the journal.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.quantization.grid import PartLayout, Parts

STATE = "journal.json"
FACTORS = "factors.npz"


class Journal:
    """The rounded parts of some artifacts' tensors, by artifact and tensor."""

    def __init__(self, directory: Path, key: Mapping[str, Any]) -> None:
        """Open the journal in `directory`; begin it anew where it was kept for another `key`."""
        self.directory = directory
        self._key = dict(key)
        directory.mkdir(parents=True, exist_ok=True)
        state = self._read()
        if not state:
            (directory / FACTORS).unlink(missing_ok=True)  # another key's
        self.blocks = int(state.get("blocks", 0))
        """Blocks of the network that are done."""
        self.output_steps = int(state.get("output_steps", 0))
        """Steps of the run for the output moments that are done: see `fisher`."""

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads((self.directory / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) and state.get("key") == self._key else {}

    def complete(self, blocks: int) -> None:
        """Record that `blocks` blocks are done."""
        self.blocks = blocks
        self._write()

    def complete_outputs(self, steps: int) -> None:
        """Record that `steps` steps of the run for the output moments are done."""
        self.output_steps = steps
        self._write()

    def _write(self) -> None:
        done = {"blocks": self.blocks, "output_steps": self.output_steps}
        state = json.dumps({"key": self._key} | done)
        beside = self.directory / f".{STATE}"
        beside.write_text(state, encoding="utf-8")
        beside.replace(self.directory / STATE)

    def make(self, artifact: str, tensor: str, layout: Mapping[str, PartLayout]) -> Parts:
        """Writable arrays for all parts of a tensor."""
        return {
            name: np.lib.format.open_memmap(
                self._path(artifact, tensor, name), "w+", part.dtype, part.shape
            )
            for name, part in layout.items()
        }

    def parts(self, artifact: str, tensor: str, names: Mapping[str, Any]) -> Parts:
        """The parts of a tensor for which `make` was called, read-only."""
        return {
            name: np.lib.format.open_memmap(self._path(artifact, tensor, name), "r")
            for name in names
        }

    def keep_factors(self, factors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Keep the factors by which channels are re-scaled: see `quantization.rescaling`."""
        beside = self.directory / f".{FACTORS}"
        with beside.open("wb") as file:
            np.savez(file, **dict[str, Any](factors))
        beside.replace(self.directory / FACTORS)

    def factors(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The factors that were kept; None if none were."""
        path = self.directory / FACTORS
        if not path.exists():
            return None
        with np.load(path) as kept:
            return dict(kept)

    def keep_output_moments(self, tensor: str, moments: npt.NDArray[np.float32]) -> None:
        """Keep the output moments of a layer's weight: see `calibration.fisher`."""
        np.save(self._path("fisher", tensor, "outputs"), moments)

    def output_moments(self, tensor: str) -> npt.NDArray[np.float32] | None:
        """The output moments of a layer's weight, read-only; None if there are none."""
        path = self._path("fisher", tensor, "outputs")
        return np.lib.format.open_memmap(path, "r") if path.exists() else None

    def _path(self, artifact: str, tensor: str, part: str) -> Path:
        return self.directory / f"{artifact}.{tensor}.{part}.npy"


def keep(into: Parts, first: int, parts: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy the `parts` of some rows, from row `first` on, to their places."""
    for name, part in parts.items():
        into[name][first : first + len(part)] = part
