"""What the user asked for, frozen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

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
class Recipe:
    """One artifact to make: for which runtime, and in what format.

    `type` names a format of the target's own ("Q4_K_M", "4bit-g64"); None lets `precision` pick
    the target's default. `context` is the number of tokens the artifact is meant to serve, for
    runtimes that cannot choose LongRoPE's factors while they run; None means the model's
    original training length. `options` are choices that only this target knows (ONNX's
    execution provider), as pairs of a name and a value; the target's table of options lists them.
    `quality` says how weights are rounded: "fast" from the weights alone, "balanced" weighing
    errors by how much each input is used, "best" layer by layer with feedback.
    """

    target: str
    precision: Precision = "int4"
    type: str | None = None
    context: int | None = None
    options: tuple[tuple[str, str], ...] = ()
    quality: Quality = "fast"

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
        }
