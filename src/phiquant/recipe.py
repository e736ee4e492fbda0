"""What the user asked for, frozen."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from phiquant.errors import RequestError

Precision = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Quality = Literal["fast", "balanced", "best"]
QUALITIES: tuple[str, ...] = get_args(Quality)


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """What to gather statistics over: a file, or None for the text that is shipped.

    At most `sequences` sequences of `length` tokens.
    """

    path: Path | None = None
    sequences: int = 128
    length: int = 512


@dataclass(frozen=True, slots=True)
class Budget:
    """What bits are to be allocated to; exactly one of the three is given."""

    bits_per_weight: float | None = None
    """Mean stored bits per weight over all tensors."""
    max_bytes: int | None = None
    """Bytes of all tensors."""
    max_kl: float | None = None
    """Mean divergence from the original, in nats a token."""

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.as_json().items() if value is not None}
        if len(given) != 1:
            raise RequestError(
                "expected one of --bits-per-weight, --max-size and --max-kl, found "
                f"{len(given) or 'none'}; choose one"
            )
        ((name, value),) = given.items()
        if not 0 < value < float("inf"):
            raise RequestError(f"expected a budget above 0, found {name} {value:g}")

    def as_json(self) -> dict[str, Any]:
        """The budget as it is recorded."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ImatrixFiles:
    """llama.cpp's importance matrices: one to weigh errors by, one to leave behind."""

    read: Path | None = None
    """GGUF or the older encoding, whatever its name; stands in for the text where it suffices."""
    write: Path | None = None
    """A file to make over the text; in the older encoding if it ends in ".dat"."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One artifact to make: for which runtime, and in what format.

    `type` names a format of the target's own ("Q4_K_M", "4bit-g64"); None lets `precision` pick
    the target's default. `context` is the number of tokens the artifact is meant to serve, for
    runtimes that cannot choose LongRoPE's factors while they run; None means the model's
    original training length. `options` are choices that only this target knows (ONNX's
    execution provider), as pairs of a name and a value; the target's table of options lists them.
    `quality` says how weights are rounded: "fast" from the weights alone, "balanced" weighing
    errors by how much each input is used, "best" layer by layer with feedback; the latter two may
    also keep attention's values at 8 bits (`job.protection`). With `rescaling` they scale channels
    first, which leaves the network the same and its single weights not.
    With a `budget`, every tensor gets the format that serves the model best within it.
    """

    target: str
    precision: Precision = "int4"
    type: str | None = None
    context: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    quality: Quality = "fast"
    budget: Budget | None = None
    rescaling: bool = True

    def option(self, name: str, default: str) -> str:
        """The value of the option `name`, `default` where it was not given."""
        return dict(self.options).get(name, default)

    def as_json(self) -> dict[str, Any]:
        """The recipe as it is recorded in `phiquant.json`."""
        return {
            "target": self.target,
            "precision": self.precision,
            "type": self.type,
            "context": self.context,
            "options": dict(self.options),
            "quality": self.quality,
            "budget": None if self.budget is None else self.budget.as_json(),
            "rescaling": self.rescaling and self.quality != "fast",
        }
