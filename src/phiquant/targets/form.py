"""`Form`: what a target makes of a recipe's words, read once, checked, and in one spelling.

A recipe says a precision or a type, a context, and options that only its target knows, all as
people write them. The target reads them into a frozen type of its own, which its planner, its
writer and its footprint take: nothing after that looks at words. Two recipes that mean the same
have equal forms (a ratio of "1" and of "1.0").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phiquant.errors import RequestError
from phiquant.planning.precision import Precision


class Form(Protocol):
    """A target's own reading of a recipe: a frozen value that can be compared and hashed."""

    @property
    def type(self) -> str:
        """The format's name, as `Target.types` has it."""

    @property
    def given(self) -> Mapping[str, str]:
        """The options that are not at their defaults, each in its one spelling."""

    @property
    def divides(self) -> bool:
        """Whether the form itself divides bits among tensors, which a budget would do too."""


@dataclass(frozen=True, slots=True)
class Request:
    """The words of a recipe that its target reads."""

    precision: Precision = "int4"
    type: str | None = None
    context: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def choice(self, name: str, values: Sequence[str], default: str) -> str:
        """The value of the option `name`, in whatever case.

        RequestError if it is none of `values`.
        """
        word = self.options.get(name, default)
        for value in values:
            if word.lower() == value.lower():
                return value
        raise RequestError(f"expected `{name}` among {', '.join(values)}, found {word!r}")

    def flag(self, name: str) -> bool:
        """Whether the option `name` is true; it is false by default."""
        return self.choice(name, ("true", "false"), "false") == "true"

    def share(self, name: str, default: float) -> float:
        """The value of the option `name`, a number from 0 to 1; RequestError for anything else."""
        word = self.options.get(name, str(default))
        try:
            value = float(word)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise RequestError(f"expected `{name}` to be a number from 0 to 1, found {word!r}")
        return value

    def type_among(
        self, types: Mapping[str, str], defaults: Mapping[Precision, str], runtime: str, choose: str
    ) -> str:
        """The type that is asked for, in whatever case, or the precision's default.

        Raises RequestError for a type that `runtime` does not have; `choose` names those it has.
        """
        if self.type is None:
            return defaults[self.precision]
        for name in types:
            if name.lower() == self.type.lower():
                return name
        raise RequestError(f"{runtime} has no type {self.type!r}; choose {choose}")


def check_context(context: int | None, longest: int) -> None:
    """RequestError for a context of more tokens than the model has positions."""
    if context is not None and context > longest:
        raise RequestError(
            f"expected `context` to be at most {longest} tokens, what the model is made for; found "
            f"{context}"
        )
