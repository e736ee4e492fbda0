"""The four precisions that every target has a good format for, and the bits of every type."""

import re
from collections.abc import Mapping
from typing import Literal, cast, get_args

Precision = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
"""Every `Precision`, the smallest first."""

BITS: Mapping[str, int] = {"int4": 4, "int8": 8, "fp16": 16, "fp32": 32}
"""Bits of a weight at each precision."""


def bits_of(type: str) -> int:
    """Bits of a weight in a target's type: the first number in its name (Q6_K, 4bit-g64, bf16)."""
    number = re.search(r"\d+", type)
    assert number is not None, type  # every target names its types so
    return int(number[0])


def precision_of(type: str) -> Precision:
    """The precision that a type belongs to; all types below 8 bits belong to int4."""
    reached = [name for name in PRECISIONS if BITS[name] <= bits_of(type)]
    return cast(Precision, reached[-1] if reached else PRECISIONS[0])
