"""What a device is: its memory, its bandwidth, and the engines that run artifacts on it.

Values only; `reading` checks them as they are read from the tables, `table` finds them by name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from phiquant.errors import RequestError
from phiquant.host.kinds import FLAG, NUMBER, WORD, instance, several
from phiquant.planning.precision import Precision

CLASSES = ("iot", "mobile", "ai-pc", "mac", "nvidia", "other")
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Refusal:
    """Forms that do not run, or do not run well, and why. Patterns are those of `fnmatch`."""

    types: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime on a kind of hardware; see data/engines.toml for the fields."""

    name: str
    target: str
    provider: str
    options: tuple[tuple[str, str], ...]
    computes: tuple[Precision, ...]
    types: Mapping[Precision, tuple[str, ...]]
    refuses: tuple[Refusal, ...]
    efficiency: float
    basis: str
    most_context: int | None = None
    """The longest context it can be given, in tokens; None for no limit of its own."""


@dataclass(frozen=True, slots=True)
class Absent:
    """Hardware of a device that nothing made here runs on."""

    engine: str
    why: str


ENGINES = several(
    instance(Engine, "an Engine", "give those of another Device, or Engine(…), not their names")
)
ABSENT = several(instance(Absent, "an Absent", "give Absent(engine, why)"))


@dataclass(frozen=True, slots=True)
class Device:
    """One device. Memory in GiB, bandwidth in 1e9 bytes a second.

    Raises RequestError for a kind that is none of CLASSES, and for values of other kinds.
    """

    name: str
    title: str
    kind: str
    """One of CLASSES."""
    memory_gib: float
    usable_gib: float
    """Memory that a model with its cache may take."""
    bandwidth_gbs: float
    """Peak bandwidth of the memory that holds the model."""
    engines: tuple[Engine, ...]
    """Engines, the preferred first."""
    source: str
    verified: bool
    """Whether memory and bandwidth were looked up at the source; else they were not checked."""
    absent: tuple[Absent, ...] = ()
    features: tuple[str, ...] = ()
    """Instruction sets, where they are known."""

    def __post_init__(self) -> None:
        WORD.check(name=self.name, title=self.title, source=self.source)
        NUMBER.check(
            memory_gib=self.memory_gib,
            usable_gib=self.usable_gib,
            bandwidth_gbs=self.bandwidth_gbs,
        )
        ENGINES.check(engines=self.engines)
        ABSENT.check(absent=self.absent)
        several(WORD).check(features=self.features)
        FLAG.check(verified=self.verified)
        if self.kind not in CLASSES:
            raise RequestError(f"expected `kind` among {', '.join(CLASSES)}, found {self.kind!r}")

    @property
    def usable(self) -> int:
        """Bytes that a model with its cache may take."""
        return int(self.usable_gib * GIB)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets whose artifacts run on it."""
        return tuple(dict.fromkeys(engine.target for engine in self.engines))

    def as_json(self) -> dict[str, Any]:
        """The device as `phiquant devices --json` prints it."""
        return asdict(self) | {
            "engines": [
                asdict(engine) | {"options": dict(engine.options)} for engine in self.engines
            ]
        }
