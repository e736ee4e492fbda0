"""What the user asked for, frozen."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

Precision = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One artifact to make: for which runtime, and in what format.

    `type` names a format of the target's own ("Q4_K_M", "4bit-g64"); None lets `precision` pick
    the target's default. `context` is the number of tokens the artifact is meant to serve, for
    runtimes that cannot choose LongRoPE's factors while they run; None means the model's
    original training length. `options` are choices that only this target knows (ONNX's
    execution provider), as pairs of a name and a value; the target's table of options lists them.
    """

    target: str
    precision: Precision = "int4"
    type: str | None = None
    context: int | None = None
    options: tuple[tuple[str, str], ...] = ()

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
        }
