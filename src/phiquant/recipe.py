"""`Recipe`: what the user asked for, frozen, and valid or not there at all."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from phiquant.errors import RequestError
from phiquant.host.kinds import PLACE, WORD, Kind, instance, optional, several
from phiquant.planning.budget import Budget
from phiquant.planning.precision import PRECISIONS, Precision, bits_of, precision_of
from phiquant.targets.form import Form, Request
from phiquant.targets.table import target, targets

Quality = Literal["data-free", "fast", "balanced", "best"]
DEFAULT: Precision = "int4"
"""Where a recipe says neither a precision nor a type."""
QUALITIES: tuple[str, ...] = get_args(Quality)

Options = Mapping[str, str | int | float] | Iterable[tuple[str, str | int | float]]
"""Choices of a target's own, by name. True and False are written as "true" and "false"."""


@dataclass(frozen=True, slots=True)
class ImatrixFiles:
    """llama.cpp's importance matrices: one to weigh errors by, one to leave behind."""

    read: str | os.PathLike[str] | None = None
    """GGUF or the older encoding, whatever its name; stands in for the text where it suffices."""
    write: str | os.PathLike[str] | None = None
    """A file to make over the text; in the older encoding if it ends in ".dat"."""

    def __post_init__(self) -> None:
        optional(PLACE).check(read=self.read, write=self.write)


BUDGET = instance(Budget, "a Budget", "give Budget(max_bytes=…), for instance")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One artifact to make: for which runtime, and in what format.

    `type` names a format of the target's own ("Q4_K_M", "4bit-g64"); None lets `precision` pick
    the target's default. A precision of None becomes the type's own, or INT4 where there is none.
    `context` is the number of tokens the artifact is meant to serve, for runtimes that cannot
    choose LongRoPE's factors while they run; None means the model's original training length.
    `options` are choices that only this target knows (ONNX's execution provider), by name; the
    target's table of options lists them, and those at their defaults are dropped. `quality` says
    how weights are rounded: "data-free" from the weights alone, "fast" by how much each input is
    used, after a glance at some dozens of tokens, "balanced" the same after thousands, "best" layer
    by layer with feedback; the latter two may also keep attention's values at 8 bits
    (`job.protection`). With `rescaling`, all but the first scale channels before they round, which
    leaves the network the same and its single weights not. With a `budget`, every tensor gets the
    format that serves the model best within it.

    Raises RequestError for a target, precision, type, option or quality that does not exist, and
    for values that contradict each other.
    """

    target: str
    precision: Precision | None = None
    type: str | None = None
    context: int | None = None
    options: Options = ()
    quality: Quality = "fast"
    budget: Budget | None = None
    rescaling: bool = True
    form: Form = field(init=False, repr=False, compare=False)
    """What the target reads: type, context and options, checked."""

    def __post_init__(self) -> None:
        WORD.check(target=self.target)
        optional(BUDGET).check(budget=self.budget)
        into = target(self.target)
        if self.precision is not None:
            _among("precision", self.precision, PRECISIONS)
        _among("quality", self.quality, QUALITIES)
        if not isinstance(self.rescaling, bool):
            raise RequestError(f"expected `rescaling` as true or false, found {self.rescaling!r}")
        if not self.rescaling and self.quality == "data-free":
            raise RequestError(
                "`quality=data-free` keeps every channel's scale as it is; leave `rescaling` out, "
                "or choose another quality"
            )
        if self.context is not None and not _positive(self.context):
            raise RequestError(
                f"expected `context` to be a whole number of tokens above 0, found {self.context!r}"
            )
        if self.type is not None and not isinstance(self.type, str):
            raise RequestError(f"expected `type` to be a name, found {self.type!r}")
        options = _words(self.options, self.target, into.options)
        if self.type is not None:
            _check_owner(self.type, self.target)
        default = self.precision or DEFAULT
        form = into.read(Request(default, self.type, self.context, options))
        precision = default if self.type is None else precision_of(form.type)
        if self.precision not in (None, precision):
            raise RequestError(
                f"`precision={self.precision}` contradicts `type={form.type}`, of "
                f"{bits_of(form.type)} bits a weight; leave one of them out"
            )
        object.__setattr__(self, "precision", precision)
        object.__setattr__(self, "options", tuple(form.given.items()))
        object.__setattr__(self, "form", form)
        if self.budget is not None:
            self._check_budget()

    def _check_budget(self) -> None:
        """RequestError where the recipe says otherwise which bits tensors are to get."""
        if self.type is not None:
            raise RequestError("a budget chooses the format of every tensor; leave out `type`")
        if self.precision in ("fp16", "fp32"):
            raise RequestError("a budget chooses the format of every tensor; leave out `precision`")
        if self.form.divides:
            options = ", ".join(f"`{name}`" for name in self.form.given)
            raise RequestError(f"a budget divides bits among all tensors; leave out {options}")

    @property
    def _rescales(self) -> bool:
        """Whether channels are re-scaled: never where all is stored as floats."""
        return self.rescaling and self.quality != "data-free" and self.precision in ("int4", "int8")

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
            "rescaling": self._rescales,
        }


def _among(name: str, value: object, values: tuple[str, ...]) -> None:
    if value not in values:
        raise RequestError(f"expected `{name}` among {', '.join(values)}, found {value!r}")


def _check_owner(type: str, name: str) -> None:
    """RequestError for a type that only other targets have."""
    word = type.lower()
    owners = [other.name for other in targets() if word in map(str.lower, other.types)]
    if owners and name not in owners:
        own = ", ".join(target(name).defaults.values())
        raise RequestError(
            f"{name} has no type {type!r}: it is a `type` of {' and '.join(owners)}; choose "
            f"`target={owners[0]}`, or a type of {name}'s own ({own}, ...)"
        )


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str)


PAIRS = several(Kind(_is_pair, "a name with its value", 'give {"embedding": 8}, for instance'))


def _words(options: Options, name: str, known: Mapping[str, str]) -> dict[str, str]:
    """The options as text by name; RequestError for an unknown or doubled one."""
    pairs = tuple(options.items()) if isinstance(options, Mapping) else options
    if isinstance(pairs, Iterable) and not isinstance(pairs, str):
        pairs = tuple(pairs)
    PAIRS.check(options=pairs)
    given: dict[str, str] = {}
    for key, value in pairs:
        if key not in known:
            choice = f"{name} has {', '.join(known)}" if known else f"{name} has no options"
            raise RequestError(f"{name} has no option {key!r}: {choice}")
        if key in given:
            raise RequestError(f"the option `{key}` is given twice for {name}")
        given[key] = str(value).lower() if isinstance(value, bool) else str(value)
    return given
