"""Kinds of values that callers hand in; a value of another kind is refused in a sentence.

A type checker sees most of these mistakes; whoever works without it must not meet an
AttributeError out of the depth.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real

from phiquant.errors import RequestError
from phiquant.host.shown import shown


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be, in words, and what to do where it is not."""

    fits: Callable[[object], bool]
    words: str
    remedy: str

    def check(self, **named: object) -> None:
        """RequestError for the first of the named values that is not of this kind."""
        for name, value in named.items():
            if not self.fits(value):
                raise RequestError(
                    f"expected {self.words} for `{name}`, found {shown(value)}; {self.remedy}"
                )


def instance(of: type | tuple[type, ...], words: str, remedy: str) -> Kind:
    """Instances of a class. True and False are no numbers."""
    return Kind(lambda value: isinstance(value, of) and not isinstance(value, bool), words, remedy)


def optional(kind: Kind) -> Kind:
    """The same, or None."""
    return Kind(lambda value: value is None or kind.fits(value), kind.words, kind.remedy)


def several(kind: Kind) -> Kind:
    """A list or tuple of these; a word is no list of its letters."""

    def fits(values: object) -> bool:
        return isinstance(values, list | tuple) and all(map(kind.fits, values))

    return Kind(fits, f"a list, of which each is {kind.words},", kind.remedy)


PLACE = instance((str, os.PathLike), "a path or a name", "give it as a str or a Path")
WORD = instance(str, "a word", "give it as a str")
WHOLE = instance(Integral, "a whole number", "give it as an int")
NUMBER = instance(Real, "a number", "give it as an int or a float")
FLAG = Kind(lambda value: isinstance(value, bool), "true or false", "give True or False")
LISTENER = Kind(callable, "a function that takes a Progress", "leave it out to hear nothing")
