"""A Phi checkpoint on disk: validated on opening, read a band of rows at a time.

Opening reads headers only (and a stored head that config.json ties to the embedding: `tied_head`).
Every way in which the files can disagree with the configuration or with one another ends in one
CheckpointError; where transformers reads the files all the same, so does this, and a note says how.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from phiquant.errors import CheckpointError
from phiquant.host.file_state import FileState, file_state, is_still
from phiquant.host.opened_file import OpenedFile
from phiquant.phi.agreement import check_agreement
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import (
    QUANTIZATIONS,
    check_quantization,
    model_class,
    named_quantization,
    read_architecture,
    read_config,
    refuse_quantized,
)
from phiquant.phi.listed import listed
from phiquant.phi.model_name import name_directory
from phiquant.phi.safetensors_file import SafetensorsTensor
from phiquant.phi.source import Source
from phiquant.phi.stored_weight import Opened, StoredWeight, stored_shapes, stored_weights
from phiquant.phi.tensor_names import architecture_names
from phiquant.phi.tied_head import settle_head
from phiquant.phi.tokenizer.tokenizer import Tokenizer, read_tokenizer
from phiquant.phi.weight_files import find_weight_files, read_tensors
from phiquant.phi.widen import WEIGHT_DTYPES, widen

Built = TypeVar("Built")

QUANTIZED = re.compile(r"\.(absmax|nested_absmax|quant_map|quant_state|SCB|qweight|qzeros|g_idx)\b")
"""In names of tensors beside quantized weights, by bitsandbytes, GPTQ and AWQ."""


class Change(Protocol):
    """What is added to some rows of a weight as they are read."""

    def add_to(self, values: npt.NDArray[np.float32], first: int, opened: Opened) -> None:
        """Add it to `values`, the weight's rows from `first` on, in place."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter over a checkpoint: where it comes from, and its settings as they are recorded."""

    source: Source
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `tensors` is in file order: the order that reads fastest."""

    directory: Path
    name: str
    """What the model is called, for file names and cards."""
    config: Mapping[str, Any]
    """The parsed config.json, corrected where the weights say otherwise (`tied_head`)."""
    architecture: Architecture
    tensors: Mapping[str, StoredWeight]
    """By the architecture's names."""
    opened: Mapping[Path, OpenedFile] = field(repr=False, compare=False)
    """The weight files, each opened once: what is read is of one file, whatever takes its name."""
    notes: tuple[str, ...] = ()
    """How the files were read where that is not plain: for the plan of every artifact."""
    states: Mapping[Path, FileState] = field(default_factory=dict, repr=False, compare=False)
    """The weight files as they were when they were opened."""
    products: Mapping[str, Sequence[Change]] = field(default_factory=dict, repr=False)
    """What an adapter adds to weights, by their names."""
    adapter: Adapter | None = None
    tokenizer_directory: Path = field(default=Path(), repr=False)
    """Where the tokenizer's files lie: the model's directory, or its adapter's."""
    _made: dict[Callable[..., object], object] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def open(cls, directory: Path, name: str | None = None) -> Self:
        """Open and check the checkpoint in `directory`, called `name` or as `model_name` has it.

        Raises ConfigError or CheckpointError; see the modules `config`, `weight_files`,
        `safetensors_file`, `tensor_names` and `agreement`.
        """
        if not directory.is_dir():
            raise CheckpointError(
                f"expected a checkpoint directory at {directory}, found "
                f"{'a file' if directory.exists() else 'nothing'}"
            )
        config = read_config(directory)
        saved_as, config = model_class(config)
        architecture = read_architecture(config)
        files = find_weight_files(directory, config)
        stored, renamings = architecture_names(read_tensors(files))
        states = {path: file_state(path) for path in {each.path for each in stored.values()}}
        opened = {path: OpenedFile(path, CheckpointError) for path in states}
        settled = settle_head(architecture, stored, opened)
        network = settled.architecture.network
        expected = stored_shapes(network, apart=saved_as is not None)
        quantized = named_quantization(config)
        try:
            check_agreement(expected, architecture.layers, settled.tensors, files)
        except CheckpointError as error:
            if quantized is None or not any(map(_shows_quantization, settled.tensors.values())):
                raise
            raise refuse_quantized(f"config.json has {quantized}, and {error}") from error
        check_quantization(config)
        config = {key: value for key, value in config.items() if key not in QUANTIZATIONS}
        if settled.architecture != architecture:
            config["tie_word_embeddings"] = settled.architecture.tied_head
        return cls(
            directory,
            name or name_directory(directory).name,
            config,
            settled.architecture,
            {each.name: each for each in stored_weights(network, settled.tensors)},
            opened,
            (*files.notes, *renamings, *settled.notes, *_read_as(saved_as, quantized)),
            states,
            tokenizer_directory=directory,
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer, read once. Raises TokenizerError."""
        size = self.architecture.vocabulary_size
        return read_tokenizer(self.tokenizer_directory, size, beside=self.directory)

    def once(self, make: Callable[[Self], Built]) -> Built:
        """What `make` makes of this checkpoint; it is called the first time only."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]  # type: ignore[return-value]

    def check_unchanged(self) -> None:
        """CheckpointError if a weight file is another than it was when the checkpoint was opened.

        What was read since, and what was hashed, need not be the same then.
        """
        changed = [path.name for path, state in self.states.items() if not is_still(path, state)]
        if changed:
            raise CheckpointError(
                f"{listed(changed)} in {self.directory} changed while it was read; run the command "
                "again once nothing writes to the checkpoint"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The weight files, in order."""
        stored = (tensor for weight in self.tensors.values() for tensor in weight.tensors)
        return tuple(dict.fromkeys(tensor.path for tensor in stored))

    @property
    def dtype(self) -> str:
        """The element type of most bytes: "BF16", "F16" or "F32"."""
        totals = dict.fromkeys(WEIGHT_DTYPES, 0)
        for tensor in self.tensors.values():
            totals[tensor.dtype] += tensor.nbytes
        return max(totals, key=totals.__getitem__)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def raw(self, name: str, first: int, last: int) -> npt.NDArray[np.generic]:
        """Elements `first` to `last` of the tensor, row-major, as it is stored (BF16 as uint16).

        What an adapter adds to it is not in them.
        """
        return self.tensors[name].elements(self.opened, first, last)

    def read_ahead(self, name: str) -> None:
        """Ask the system to fetch the tensor's bytes."""
        self.tensors[name].read_ahead(self.opened)

    def weight(self, name: str, first: int = 0, last: int | None = None) -> npt.NDArray[np.float32]:
        """Rows `first` to `last` (exclusive) of the tensor, widened to float32, exactly.

        Raises CheckpointError if the file is shorter than it was when it was opened.
        """
        stored = self.tensors[name]
        values = widen(stored.rows(self.opened, first, last), stored.dtype)
        for change in self.products.get(name, ()):
            change.add_to(values, slice(first, last).indices(stored.shape[0])[0], self.opened)
        return values


def _shows_quantization(tensor: SafetensorsTensor) -> bool:
    """Whether a tensor is a part of a quantized weight, by its type or its name."""
    return tensor.dtype not in WEIGHT_DTYPES or QUANTIZED.search(tensor.name) is not None


def _read_as(saved_as: str | None, quantized: str | None) -> Iterator[str]:
    """Notes on a configuration that says otherwise than the weights are read."""
    if saved_as is not None:
        yield (
            f"saved as {saved_as}, whose network is a Phi-3's: q_proj, k_proj and v_proj are read "
            "as qkv_proj, gate_proj and up_proj as gate_up_proj"
        )
    if quantized is not None:
        yield f"config.json has {quantized}, and the weights are not quantized: it was left out"
