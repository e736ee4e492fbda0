"""The dimensions of a Phi-3 model as GGUF's key-value fields, and back.

An int is stored as uint32, a float as float32. Keys and meanings: llama.cpp's loader of the
architecture `phi3`. Two things it does are worth knowing:

- `phi3.attention.sliding_window` is read and then ignored: attention is full (src/models/phi3.cpp,
  as of b11549). Within the window (2047 tokens for Phi-3-mini-4k) that is the model as published;
  beyond it every token still sees all earlier ones. The published value is stored, 0 for none, and
  an architecture that is read back has none, for that is what will be computed.
- LongRoPE's short or long factors are chosen by the size of the context that is allocated, and
  `phi3.rope.scaling.attn_factor` multiplies cos and sin on both sides of the boundary.
"""

from collections.abc import Callable, Mapping
from math import isfinite

from phiquant.errors import ArtifactError
from phiquant.host.shown import shown
from phiquant.phi.architecture import Architecture
from phiquant.phi.config import LARGEST_COUNT
from phiquant.phi.network.parts import LongRope, Rope
from phiquant.phi.soundness import fault_of

ARCHITECTURE = "phi3"

Scalar = int | float | str | bool

CONTEXT_LENGTH = "phi3.context_length"
EMBEDDING_LENGTH = "phi3.embedding_length"
FEED_FORWARD_LENGTH = "phi3.feed_forward_length"
BLOCK_COUNT = "phi3.block_count"
HEAD_COUNT = "phi3.attention.head_count"
KV_HEAD_COUNT = "phi3.attention.head_count_kv"
KEY_LENGTH = "phi3.attention.key_length"
NORM_EPSILON = "phi3.attention.layer_norm_rms_epsilon"
SLIDING_WINDOW = "phi3.attention.sliding_window"
ROPE_DIMENSIONS = "phi3.rope.dimension_count"
ROPE_BASE = "phi3.rope.freq_base"
ORIGINAL_CONTEXT = "phi3.rope.scaling.original_context_length"
ATTENTION_FACTOR = "phi3.rope.scaling.attn_factor"
VOCABULARY_SIZE = "phi3.vocab_size"


def dimension_fields(architecture: Architecture) -> dict[str, Scalar]:
    """The fields from which llama.cpp builds the network."""
    rope = architecture.rope
    original = rope.long.original_positions if rope.long else architecture.max_positions
    fields: dict[str, Scalar] = {
        CONTEXT_LENGTH: architecture.max_positions,
        ORIGINAL_CONTEXT: original,
        EMBEDDING_LENGTH: architecture.hidden_size,
        FEED_FORWARD_LENGTH: architecture.intermediate_size,
        BLOCK_COUNT: architecture.layers,
        HEAD_COUNT: architecture.heads,
        KV_HEAD_COUNT: architecture.kv_heads,
        NORM_EPSILON: float(architecture.norm_epsilon),
        ROPE_DIMENSIONS: rope.dimensions,
        ROPE_BASE: float(rope.theta),
        SLIDING_WINDOW: architecture.sliding_window or 0,
        VOCABULARY_SIZE: architecture.vocabulary_size,
    }
    if rope.long:
        fields[ATTENTION_FACTOR] = float(rope.long.attention_factor)
    return fields


def read_dimensions(
    fields: Mapping[str, object],
    vocabulary_size: int,
    tied_head: bool,
    factors: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> Architecture:
    """The architecture that the fields of a GGUF file describe, by anyone's hand.

    `factors` are LongRoPE's short and long ones, if the file has them. Fields that llama.cpp
    does without have the meaning that it gives to their absence; ArtifactError for others.
    """
    heads = _count(fields, HEAD_COUNT)
    hidden = _count(fields, EMBEDDING_LENGTH)
    kv_heads = _count(fields, KV_HEAD_COUNT, lambda: heads)
    if hidden % heads:
        raise ArtifactError(f"an embedding of {hidden} cannot be divided among {heads} heads")
    head_size = _count(fields, KEY_LENGTH, lambda: hidden // heads)
    positions = _count(fields, CONTEXT_LENGTH)
    _check_window(fields)
    long = None
    if factors is not None:
        original = _count(fields, ORIGINAL_CONTEXT, lambda: positions)
        long = LongRope(*factors, original, _number(fields, ATTENTION_FACTOR, 1.0))
    architecture = Architecture(
        hidden_size=hidden,
        layers=_count(fields, BLOCK_COUNT),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate_size=_count(fields, FEED_FORWARD_LENGTH),
        vocabulary_size=vocabulary_size,
        norm_epsilon=_number(fields, NORM_EPSILON, None),
        tied_head=tied_head,
        max_positions=positions,
        sliding_window=None,
        rope=Rope(
            _number(fields, ROPE_BASE, 10000.0),
            _count(fields, ROPE_DIMENSIONS, lambda: head_size),
            long,
        ),
    )
    fault = fault_of(architecture)
    if fault is not None:
        raise ArtifactError(f"the fields of the GGUF file describe no network: {fault}")
    return architecture


def _count(fields: Mapping[str, object], key: str, absent: Callable[[], int] | None = None) -> int:
    value = fields.get(key)
    if value is None and absent is not None:
        return absent()
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST_COUNT:
        raise ArtifactError(f"expected a positive integer in the field {key}, found {shown(value)}")
    return value


def _number(fields: Mapping[str, object], key: str, absent: float | None) -> float:
    value = fields.get(key, absent)
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise ArtifactError(f"expected a finite number in the field {key}, found {shown(value)}")
    return float(value)


def _check_window(fields: Mapping[str, object]) -> None:
    value = fields.get(SLIDING_WINDOW, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ArtifactError(f"expected tokens in the field {SLIDING_WINDOW}, found {shown(value)}")
