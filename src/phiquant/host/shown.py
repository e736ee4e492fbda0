"""A value by another hand, in a sentence: it may be of any kind and of any length."""

from reprlib import Repr

LONGEST = 60
"""Characters of a sentence that a value may take."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = LONGEST
_SHORT.maxlevel = 2
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxarray = 4


def shown(value: object) -> str:
    """The value as Python writes it, cut short; of a long one only the beginning is looked at."""
    text = _SHORT.repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
