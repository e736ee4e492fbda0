"""JSON and TOML by other hands, parsed to values that nothing later stumbles over.

What a parser of Python's would take and a later step could not: numbers of thousands of digits, NaN
and infinities, a key that is given twice (another reader may take the other value), halves of
surrogate pairs, which are no characters, values nested more deeply than code that walks them can
follow, and more values than there is memory for. All are refused here, with ValueError: a phrase
that says what was found.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from math import inf, isfinite
from sys import getsizeof
from typing import Any

DEEPEST = 64
"""Lists and objects within one another; the files read here have at most eight."""
MOST_MEMORY = 256 << 20
"""Bytes that the values of a text may take; those of Phi-4-mini's tokenizer take 200 MB at most."""
MEMORY = {":": 280, "[": 110, "{": 70, ",": 72, "=": 280}
"""What makes a value in a text → the bytes that it takes at most, measured: an entry of an object,
a list, an object, an item. "=" is TOML's ":"."""
MOST_DOTS = 64
MOST_DIGITS = 64
"""Of a whole number. `model_max_length` has 31 in many a tokenizer_config.json."""
LONGEST_REAL = 1100
"""Characters of a real number: more than the exact decimals of any float have."""
OUTER = (dict, list)
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:  # noqa: ANN401 (any JSON value)
    """The value that `text` holds; ValueError for what is no JSON or not fit to be worked with."""
    _check_memory(text, ":[{,")
    try:
        value = json.loads(
            text,
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_no_number,
            object_pairs_hook=_unique,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    if SURROGATE.search(text):
        _check_characters(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The table that `text` holds; ValueError for what is no TOML or not fit to be worked with."""
    _check_memory(text, "=[{,")
    if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
        # tomllib takes time and memory by the square of a key's parts.
        raise ValueError(f"a line has more than {MOST_DOTS} dots")
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(table)
    for number in _leaves(table):
        if isinstance(number, float) and not isfinite(number):
            raise ValueError(f"{number} is no number that can be worked with")
        if isinstance(number, int) and abs(number) >= 10**MOST_DIGITS:
            raise ValueError(_TOO_LONG)
    return table


_TOO_DEEP = f"values are nested more than {DEEPEST} deep"
_TOO_LONG = f"a number has more than {MOST_DIGITS} digits"


def _check_memory(text: str, marks: str) -> None:
    needed = getsizeof(text) + sum(MEMORY[mark] * text.count(mark) for mark in marks)
    if needed > MOST_MEMORY:
        raise ValueError(f"its values would take {needed >> 20} MiB of memory")


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(_TOO_LONG)
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits) if len(digits) <= LONGEST_REAL else inf
    if not isfinite(number):
        raise ValueError(f"{digits:.40} is beyond every number that can be worked with")
    return number


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice:.40} is given twice in one object")
    return members


def _check_depth(value: object) -> None:
    level: list[Any] = [value] if type(value) in OUTER else []
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inside(outer) if type(inner) in OUTER]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _inside(outer: Any) -> Iterable[Any]:  # noqa: ANN401 (an object or a list)
    return outer.values() if type(outer) is dict else outer


def _leaves(outer: object) -> Iterator[object]:
    for inner in _inside(outer):
        if type(inner) in OUTER:
            yield from _leaves(inner)
        else:
            yield inner


def _check_characters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair, which is no character") from None
