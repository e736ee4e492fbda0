"""The four precisions that every target has a good format for."""

from typing import Literal, get_args

Precision = Literal["int4", "int8", "fp16", "fp32"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
"""Every `Precision`, the smallest first."""
