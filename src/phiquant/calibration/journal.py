"""What a calibrated run has done so far, on the disk: it outlives a killed job and a power cut.

A directory of one file an array, and `journal.json`, which is replaced after every step and says
what is whole: the name of each array (or of a part of one), its bytes and their BLAKE3. An array is
forced to the disk before the journal names it, and checked when the journal is opened. What does
not check is as if it had never been: rounded blocks are begun anew without it, and so are output
moments.

    key       what the arrays are good for: they serve no other request
    factors   by what channels are re-scaled
    outputs   {"done": steps of the run for the output moments, "kept": {name: [bytes, hash]}}
    blocks    {"done": blocks of the network, "kept": what was rounded,
               "states": hidden states at the input of the next block}
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from phiquant.host.hashes import hash_array
from phiquant.host.mapped import force, new_array, old_array
from phiquant.host.staging import write_text
from phiquant.quantization.grid import PartLayout, Parts

STATE = "journal.json"
FACTORS = "factors.npz"

Kept = dict[str, list[int | str]]
"""File name, with "@offset" where a part of the file is meant → [bytes, BLAKE3]."""


@dataclass
class Section:
    """One of the two long pieces of work: how many of its steps are done, and what they left."""

    done: int = 0
    kept: Kept = field(default_factory=dict)
    states: Kept = field(default_factory=dict)
    """Kept until the next step alone, which overwrites it."""

    def as_json(self) -> dict[str, Any]:
        """The section as the journal writes it."""
        return {"done": self.done, "kept": self.kept, "states": self.states}


@dataclass(frozen=True, slots=True)
class Region:
    """A mapped array, or a part of it, and where in which file its bytes lie."""

    array: npt.NDArray[np.generic]
    path: Path
    offset: int = 0

    @property
    def name(self) -> str:
        """What the journal calls it."""
        return f"{self.path.name}@{self.offset}"


class Journal:
    """The rounded parts of some artifacts' tensors, by artifact and tensor."""

    def __init__(self, directory: Path, key: str) -> None:
        """Open the journal in `directory`; begin it anew where it was kept for another `key`."""
        self.directory = directory
        self._key = key
        self._new: list[Region] = []
        directory.mkdir(parents=True, exist_ok=True)
        state = self._read()
        self._factors: Kept = self._sound(state.get("factors"))
        if len(self._factors) != len(state.get("factors") or ()):
            state = {}  # all that came after was rounded by them
        self._outputs = self._section(state.get("outputs"))
        self._blocks = self._section(state.get("blocks"))

    @property
    def blocks(self) -> int:
        """Blocks of the network that are done."""
        return self._blocks.done

    @property
    def output_steps(self) -> int:
        """Steps of the run for the output moments that are done: see `fisher`."""
        return self._outputs.done

    def complete(self, blocks: int, states: Iterable[Region] = ()) -> None:
        """Record that `blocks` blocks are done; `states` are what the next one begins with."""
        self._blocks.done = blocks
        self._complete(self._blocks, states)

    def complete_outputs(self, steps: int, states: Iterable[Region] = ()) -> None:
        """Record that `steps` steps of the run for the output moments are done."""
        self._outputs.done = steps
        self._complete(self._outputs, states)

    def make(self, artifact: str, tensor: str, layout: Mapping[str, PartLayout]) -> Parts:
        """Writable arrays for all parts of a tensor. OSError if the disk has no room for them."""
        return {
            name: self.new(self._name(artifact, tensor, name), part.dtype, part.shape)
            for name, part in layout.items()
        }

    def new(
        self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]
    ) -> npt.NDArray[np.generic]:
        """A writable array that the next step to be completed leaves."""
        array = new_array(self.directory / name, dtype, shape)
        self._new.append(Region(array, self.directory / name))
        return array

    def keep(self, region: Region) -> None:
        """Let the next step that is completed leave `region`, whose array was made elsewhere."""
        self._new.append(region)

    def parts(self, artifact: str, tensor: str, layout: Mapping[str, PartLayout]) -> Parts:
        """The parts of a tensor that was made, read-only."""
        return {
            name: old_array(
                self.directory / self._name(artifact, tensor, name), part.dtype, part.shape
            )
            for name, part in layout.items()
        }

    def keep_factors(self, factors: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Keep by what channels are re-scaled: see `quantization.rescaling`."""
        path = self.directory / FACTORS
        with path.open("wb") as file:
            np.savez(file, **dict[str, Any](factors))
        content = np.fromfile(path, np.uint8)
        force(content, path)
        self._factors = {f"{FACTORS}@0": [content.size, hash_array(content)]}
        self._write()

    def factors(self) -> dict[str, npt.NDArray[np.float32]] | None:
        """The factors that were kept; None if none were."""
        if not self._factors:
            return None
        with np.load(self.directory / FACTORS) as kept:
            return dict(kept)

    def keep_output_moments(self, tensor: str, moments: npt.NDArray[np.float32]) -> None:
        """Keep what `calibration.fisher` measured for a layer's weight."""
        path = self.directory / self._name("fisher", tensor, "outputs.npy")
        np.save(path, moments)
        self.keep(Region(np.memmap(path, np.uint8, "r+"), path))

    def output_moments(self, tensor: str) -> npt.NDArray[np.float32] | None:
        """The output moments of a layer's weight, read-only; None if there are none."""
        path = self.directory / self._name("fisher", tensor, "outputs.npy")
        return np.lib.format.open_memmap(path, "r") if path.exists() else None

    def forget(self, file: str) -> None:
        """Let no step depend on `file` any more, before it is removed."""
        for section in (self._outputs, self._blocks):
            for entries in (section.kept, section.states):
                for name in [name for name in entries if name.rpartition("@")[0] == file]:
                    del entries[name]
        self._write()

    def _complete(self, section: Section, states: Iterable[Region]) -> None:
        section.kept |= _forced(self._new)
        section.states = _forced(states)
        self._new = []
        self._write()

    def _write(self) -> None:
        state = {
            "key": self._key,
            "factors": self._factors,
            "outputs": self._outputs.as_json(),
            "blocks": self._blocks.as_json(),
        }
        write_text(self.directory / STATE, json.dumps(state))

    def _read(self) -> dict[str, Any]:
        try:
            state = json.loads((self.directory / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return state if isinstance(state, dict) and state.get("key") == self._key else {}

    def _section(self, state: object) -> Section:
        """The section that was recorded, if all that it left is there; else one not begun."""
        if not isinstance(state, dict) or not isinstance(state.get("done"), int):
            return Section()
        kept, states = (self._sound(state.get(name)) for name in ("kept", "states"))
        if len(kept) != len(state["kept"]) or len(states) != len(state["states"]):
            return Section()
        return Section(state["done"], kept, states)

    def _sound(self, kept: object) -> Kept:
        """Those of the recorded arrays whose bytes are what was recorded."""
        if not isinstance(kept, dict):
            return {}
        return {name: entry for name, entry in kept.items() if self._checks(name, entry)}

    def _checks(self, name: str, entry: object) -> bool:
        file, _, offset = name.rpartition("@")
        if Path(file).name != file or not offset.isdigit() or not isinstance(entry, list):
            return False
        try:
            size, digest = entry
            whole = np.memmap(self.directory / file, np.uint8, "r")
        except (OSError, ValueError):  # missing, empty, or an entry that is none
            return False
        region = whole[int(offset) : int(offset) + int(size)]
        return bool(region.size == size) and hash_array(region) == digest

    @staticmethod
    def _name(artifact: str, tensor: str, part: str) -> str:
        return f"{artifact}.{tensor}.{part}"


def _forced(regions: Iterable[Region]) -> Kept:
    """Force the regions to the disk; their entries in the journal."""
    entries: Kept = {}
    for region in regions:
        force(region.array, region.path)
        entries[region.name] = [int(region.array.nbytes), hash_array(region.array)]
    return entries


def keep(into: Parts, first: int, parts: Mapping[str, npt.NDArray[Any]]) -> None:
    """Copy the `parts` of some rows, from row `first` on, to their places."""
    for name, part in parts.items():
        into[name][first : first + len(part)] = part
