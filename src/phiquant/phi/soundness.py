"""Whether the dimensions that an artifact states go together and make a network.

`config.py` asks the same of a checkpoint's configuration, field by field.
"""

from collections.abc import Iterator
from math import isfinite

from phiquant.phi.architecture import Architecture
from phiquant.phi.config import GREATEST, LARGEST_COUNT, LEAST, MOST_IDS, MOST_LAYERS
from phiquant.phi.network.parts import LongRope, Rope


def fault_of(architecture: Architecture) -> str | None:
    """What is wrong with the dimensions, in a sentence's half; None if nothing is."""
    return next(_faults(architecture), None)


def rope_fault(rope: Rope) -> str | None:
    """The same of the rotary embedding alone."""
    return next(_rope_faults(rope), None)


def _faults(model: Architecture) -> Iterator[str]:
    for name, value, most in (
        ("layers", model.layers, MOST_LAYERS),
        ("tokens in its vocabulary", model.vocabulary_size, MOST_IDS),
        ("values in a hidden state", model.hidden_size, LARGEST_COUNT),
        ("attention heads", model.heads, LARGEST_COUNT),
        ("key-value heads", model.kv_heads, LARGEST_COUNT),
        ("values in a head", model.head_size, LARGEST_COUNT),
        ("values between up and down", model.intermediate_size, LARGEST_COUNT),
        ("positions", model.max_positions, LARGEST_COUNT),
        ("positions in a sliding window", model.sliding_window or 1, LARGEST_COUNT),
        ("rotary dimensions", model.rope.dimensions, model.head_size),
    ):
        if not 1 <= value <= most:
            yield f"{value} {name}, expected 1 to {most}"
    if model.heads % max(model.kv_heads, 1):
        yield f"{model.heads} attention heads, which cannot share {model.kv_heads} key-value heads"
    if not _is_positive(model.norm_epsilon):
        yield f"a norm epsilon of {model.norm_epsilon}, expected a positive number"
    yield from _rope_faults(model.rope)


def _rope_faults(rope: Rope) -> Iterator[str]:
    if rope.dimensions < 2 or rope.dimensions % 2:
        yield f"{rope.dimensions} rotary dimensions, expected an even number"
    if not _is_positive(rope.theta):
        yield f"a rope theta of {rope.theta}, expected a positive number"
    if rope.long is not None:
        yield from _long_faults(rope.long, rope.dimensions // 2)


def _long_faults(long: LongRope, count: int) -> Iterator[str]:
    if not 1 <= long.original_positions <= LARGEST_COUNT:
        yield f"LongRoPE from {long.original_positions} positions on"
    if not _is_positive(long.attention_factor):
        yield f"a LongRoPE attention factor of {long.attention_factor}"
    for name, factors in (("short", long.short_factors), ("long", long.long_factors)):
        if len(factors) != count:
            yield f"{len(factors)} {name} factors of LongRoPE, expected {count}"
        elif not all(map(_is_positive, factors)):
            yield f"{name} factors of LongRoPE that are not all positive"


def _is_positive(number: float) -> bool:
    return isfinite(number) and LEAST <= number <= GREATEST
