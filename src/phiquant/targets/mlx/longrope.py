"""LongRoPE in a runtime that knows only one list of factors.

mlx_lm's phi3 always rotates by `rope_scaling["long_factor"]`, at every length, and multiplies by
`sqrt(1 + ln(max / original) / ln(original))`, whatever the checkpoint states. The model itself
switches: the short factors hold for sequences up to `original` tokens, the long ones beyond. So an
artifact is exact on one side of that boundary only, and which side is decided when it is made:
the list of the chosen side goes where the runtime reads. The checkpoint's own values stay in
config.json under `phiquant.longrope`.

Source: `SuScaledRoPE` in mlx_lm/models/rope_utils.py (0.32), https://arxiv.org/abs/2402.13753.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from phiquant.errors import ConfigError
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import LongRope
from phiquant.targets.form import check_context

FactorList = Literal["short", "long"]


@dataclass(frozen=True, slots=True)
class ServedLengths:
    """The sequence lengths, in tokens, at which an artifact's rotary embedding is the model's."""

    first: int
    last: int
    side: FactorList | None
    """Which factors the runtime uses; None for a model without LongRoPE."""

    @property
    def sentence(self) -> str:
        """The same in words, for plans and reports."""
        if self.side is None:
            return f"exact for sequences of {self.first} to {self.last} tokens"
        return (
            "mlx_lm uses one list of LongRoPE factors for every length; here it is the "
            f"{self.side} ones, exact for sequences of {self.first} to {self.last} tokens"
        )


def served_lengths(architecture: Architecture, context: int | None) -> ServedLengths:
    """What an artifact for `context` tokens (None: the original training length) will serve.

    Raises RequestError for a context that the model itself does not reach.
    """
    longest = architecture.max_positions
    check_context(context, longest)
    long = architecture.rope.long
    if long is None or long.short_factors == long.long_factors:
        return ServedLengths(1, longest, None)
    if context is None or context <= long.original_positions:
        return ServedLengths(1, min(long.original_positions, longest), "short")
    return ServedLengths(long.original_positions + 1, longest, "long")


def read_served_lengths(config: Mapping[str, Any], architecture: Architecture) -> ServedLengths:
    """The same of an artifact on disk, ours or another tool's, from its config.json.

    `architecture` is the one that the runtime builds from `config`.
    """
    rope = architecture.rope.long
    if rope is None:
        return ServedLengths(1, architecture.max_positions, None)
    kept = kept_longrope(config)
    scaling = config["rope_scaling"]
    used = list(rope.long_factors)
    short = kept.get("short_factors", scaling.get("short_factor", used))
    long = kept.get("long_factors", used)
    if used == short == long:
        return ServedLengths(1, architecture.max_positions, None)
    if used == short:
        return ServedLengths(1, min(rope.original_positions, architecture.max_positions), "short")
    return ServedLengths(rope.original_positions + 1, architecture.max_positions, "long")


def rope_fields(architecture: Architecture, served: ServedLengths) -> dict[str, Any]:
    """The fields of config.json that make mlx_lm rotate as the model does on the served side.

    Raises ConfigError for an attention factor that the runtime's formula cannot give.
    """
    rope = architecture.rope
    fields: dict[str, Any] = {
        "rope_theta": rope.theta,
        "partial_rotary_factor": _rotary_fraction(rope.dimensions, architecture.head_size),
        "max_position_embeddings": architecture.max_positions,
        "rope_scaling": None,
    }
    long = rope.long
    if long is None:
        return fields | {"original_max_position_embeddings": architecture.max_positions}
    used = long.long_factors if served.side == "long" else long.short_factors
    original, longest = _lengths_for(long, architecture.max_positions)
    return fields | {
        "original_max_position_embeddings": original,
        "max_position_embeddings": longest,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": list(long.short_factors),
            "long_factor": list(used),
            # mlx_lm computes it from the two lengths; written for readers that want it stated.
            "attention_factor": long.attention_factor,
        },
    }


def runtime_attention_factor(original: float, longest: float) -> float:
    """What mlx_lm multiplies queries and keys by, given the two lengths in config.json."""
    if longest <= original:
        return 1.0
    return math.sqrt(1 + math.log(longest / original) / math.log(original))


def kept_originals(architecture: Architecture, served: ServedLengths) -> dict[str, Any]:
    """The checkpoint's own LongRoPE, for config.json to hold as `phiquant`."""
    long = architecture.rope.long
    if long is None:
        return {}
    return {
        "longrope": {
            "factors": served.side or "short",
            "exact_for": [served.first, served.last],
            "note": served.sentence,
            "original_positions": long.original_positions,
            "max_positions": architecture.max_positions,
            "short_factors": list(long.short_factors),
            "long_factors": list(long.long_factors),
            "attention_factor": long.attention_factor,
        }
    }


def kept_longrope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `kept_originals` left in a config.json; empty in other tools' artifacts."""
    own = config.get("phiquant")
    kept = own.get("longrope") if isinstance(own, Mapping) else None
    if not isinstance(kept, Mapping):
        return {}
    lengths = [kept.get("original_positions"), kept.get("max_positions")]
    if not all(isinstance(length, int) and length > 0 for length in lengths):
        raise ConfigError("phiquant.longrope in config.json should state two positive lengths")
    return kept


def _lengths_for(long: LongRope, longest: int) -> tuple[int, int]:
    """The lengths (original, longest) to write, for the attention factor to come out right.

    The runtime's formula is `sqrt(ln(longest) / ln(original))`. Where the checkpoint states a
    factor of its own, `longest` becomes `original ** (factor ** 2)`; both must be integers
    (transformers checks), so they are raised to a power until the rounding does not matter.
    """
    wanted, base = long.attention_factor, long.original_positions
    if _gives(base, longest, wanted):
        return base, longest
    if wanted < 1 or base < 2:
        raise ConfigError(
            f"LongRoPE's attention factor is {wanted} over {base} positions; mlx_lm can express "
            "only factors of at least 1, over 2 positions or more: choose the target gguf"
        )
    for power in range(1, 20):
        original = base**power
        lengths = original, round(original ** (wanted**2))
        if _gives(*lengths, wanted):
            return lengths
    raise ConfigError(f"mlx_lm cannot express LongRoPE's attention factor {wanted}")


def _gives(original: int, longest: int, wanted: float) -> bool:
    return original > 1 and math.isclose(
        runtime_attention_factor(original, longest), wanted, rel_tol=1e-6
    )


def _rotary_fraction(dimensions: int, head_size: int) -> float:
    """The fraction from which the runtime's `int(head_size * fraction)` recovers `dimensions`."""
    fraction = dimensions / head_size
    while int(head_size * fraction) < dimensions:
        fraction = math.nextafter(fraction, 2.0)
    return fraction
