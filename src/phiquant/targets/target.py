"""What every target brings: a plan, a writer, a runner, a reader.

A target is a folder with three rooms: `grids.py` (what it can store), `writer.py` (leaves a
directory that the runtime loads) and `runner.py` (tokens in, logits out, in the real runtime).
`table.py` lists them; nothing else in the house knows a target by name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from phiquant.phi.architecture import Architecture
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import Survey
from phiquant.planning.footprint import Footprint, Use
from phiquant.planning.plan import Plan, PlanRow
from phiquant.planning.precision import Precision
from phiquant.quantization.grid import Floats, Grid
from phiquant.targets.form import Form, Request
from phiquant.targets.importance import ImportanceFiles
from phiquant.targets.writing import Complete, Writer


@dataclass(frozen=True, slots=True)
class Generation:
    """What a runtime generated greedily: new token ids, their text, and how it went."""

    tokens: tuple[int, ...]
    text: str
    stopped: bool
    """True if the runtime ended by itself at an end-of-sequence token."""
    seconds: float
    """Wall time of the decoding steps, without the prompt."""

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed."""
        return len(self.tokens) / self.seconds if self.seconds > 0 else 0.0


class Runner(Protocol):
    """An artifact loaded in its own, unmodified runtime."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *ended: object) -> None: ...

    @property
    def runtime(self) -> str:
        """The runtime's name and version, for reports."""

    @property
    def slow(self) -> bool:
        """Whether full logits over a long text are impractical here (MLX on a CPU)."""

    def tokenize(self, text: str) -> list[int]:
        """The runtime's own tokenization of `text`, special tokens parsed, none added."""

    @property
    def chat_template(self) -> str | None:
        """The chat template as the artifact holds it for the runtime; None if it holds none."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        """The prompt that the runtime's own template engine makes of `messages` (turns with
        `role` and `content`), up to where the assistant's next turn begins.

        None if no such engine is installed. Raises ArtifactError, in the engine's words, where it
        cannot render the artifact's template.
        """

    def logits(self, tokens: npt.NDArray[np.int32], last: int | None = None) -> Floats:
        """Logits (tokens, vocabulary) of one sequence from an empty KV cache.

        With `last`, those of its last tokens only; the others are not kept in memory.
        """

    def generate(self, prompt: npt.NDArray[np.int32], limit: int) -> Generation:
        """Continue `prompt` greedily until the artifact's own end of sequence, or `limit`."""

    def stops_at(self, token: int) -> bool:
        """Whether the runtime's own stopping rule ends a generation at `token`."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One tensor as an artifact's files hold it, for `inspect`."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int


class Artifact(Protocol):
    """An artifact opened for reading, without its runtime: what is stored, decoded exactly."""

    @property
    def path(self) -> Path:
        """The artifact's directory."""

    @property
    def type(self) -> str:
        """The format's name as the files state it ("Q4_K_M", "4bit-g64")."""

    def entries(self) -> tuple[StoredEntry, ...]:
        """Every stored tensor."""

    def weight(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of the tensor for the checkpoint's weight `name`, as the runtime decodes them."""

    @property
    def architecture(self) -> Architecture:
        """The dimensions as the artifact's own metadata state them."""


@dataclass(frozen=True, slots=True)
class WriterMemory:
    """Anonymous bytes that writing an artifact takes beside the tensors (fitted to measured jobs:
    benchmarks/job_memory.py).
    """

    fixed: int
    """Libraries and graphs."""
    a_token: int
    """An entry of the vocabulary, as the target writes it."""


FormT = TypeVar("FormT", bound=Form)


@dataclass(frozen=True, slots=True)
class Target(Generic[FormT]):
    """One runtime's folder, as the rest of the house sees it."""

    name: str
    title: str
    """The runtime's proper name ("llama.cpp")."""
    grids: Mapping[str, Grid]
    types: Mapping[str, str]
    """What `--type` may name, each with a sentence."""
    defaults: Mapping[Precision, str]
    """The type that each precision picks."""
    read: Callable[[Request], FormT]
    """What the target makes of a recipe's words; RequestError for what it does not have."""
    plan: Callable[[Architecture, Survey, FormT], Plan]
    choices: Callable[[PlanRow, FormT, Survey], tuple[PlanRow, ...]]
    """A planned row on each grid on which writer and runtime take it beside any others, with
    its bytes there; none for a row whose grid is fixed. Grids that the runtime is slow with
    are left out."""
    type_of: Callable[[Sequence[PlanRow]], str]
    """The type, as `Plan.type` has it, by which a mixture of grids goes."""
    new_writer: Callable[[Plan, Checkpoint, FormT, Path], Writer]
    """See `writer`, which checks what this one is given."""
    writing: WriterMemory
    footprint: Callable[[Plan, FormT, Architecture, Use], Footprint]
    """Peak memory of the runtime that runs a plan's artifact."""
    recognises: Callable[[Path], bool]
    """Whether a path (directory or file) holds this target's format."""
    open: Callable[[Path], Artifact]
    runner: Callable[[Path], Runner]
    """Loads the artifact; MissingDependency if the runtime is not installed."""
    library: str
    """What the Hugging Face hub calls the format (`library_name` of a model card)."""
    command: Callable[[Path], str]
    """The line that runs the artifact in a directory, typed in that directory."""
    prepare: Callable[[Checkpoint], tuple[str, ...]]
    """Make once (`Checkpoint.once`) what takes long and no plan decides; it runs beside the survey.

    Returns what the runtime will do otherwise than the checkpoint's tokenizer, in sentences for
    the plan. Raises TokenizerError or MissingDependency.
    """
    command_here: Callable[[Path], str | None] = lambda path: None
    """For a `command` whose program no package of Python brings: the same with what is installed
    in this Python; None where nothing is."""
    apart: bool = False
    """Whether the writer takes the parts of fused weights as tensors of their own, as
    `planning.parts` names them."""
    importance: ImportanceFiles | None = None
    """For a runtime that has files of importance matrices."""
    render: Callable[[Path, Sequence[Mapping[str, str]]], str | None] | None = None
    """`Runner.render` of an artifact, where the runtime's template engine is a process of its own
    and needs no runner."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Names that `Recipe.options` may hold, each with a sentence; `read` checks the values."""

    def choices_for(self, form: FormT, survey: Survey) -> Callable[[PlanRow], tuple[PlanRow, ...]]:
        """`choices` of any row, for one form and model."""
        return lambda row: self.choices(row, form, survey)

    def writer(self, plan: Plan, checkpoint: Checkpoint, form: FormT, directory: Path) -> Writer:
        """A writer of the artifact that `plan` describes into the existing `directory`.

        It raises Incomplete where it was not given every row that the plan has. Raises
        TokenizerError or ConfigError for what cannot be written.
        """
        return Complete(self.new_writer(plan, checkpoint, form, directory), plan)
