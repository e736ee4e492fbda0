"""Memory of onnxruntime-genai while it runs an artifact.

Weights are read into memory. The cache is one shared buffer a layer for `max_length` tokens, of
the activations' type (FP32 on CPUs). A prompt goes through the graph at once: logits for every
one of its tokens, unless the artifact gives the last only, beside the activations of a layer,
whose arena keeps every buffer that was ever needed.
"""

from phiquant.phi.architecture import Architecture
from phiquant.planning.footprint import Footprint, Use, cached_values
from phiquant.planning.plan import Plan

RUNTIME = 85 << 20
"""Libraries that are touched and the session's own tables; measured."""
A_TOKEN = 500
"""Bytes of an entry of the vocabulary; measured."""
ON_CPU = ("cpu", "mobile")


def footprint(plan: Plan, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in onnxruntime-genai."""
    wide = 4 if use.provider in ON_CPU else 2
    last_only = any("last position" in note for note in plan.notes)
    logits = 1 if last_only else use.prompt
    layer = (
        4 * architecture.hidden_size
        + architecture.qkv_rows
        + architecture.heads * architecture.head_size
        + 4 * architecture.intermediate_size
    )
    return Footprint(
        weights=plan.nbytes,
        copies=_copies(plan, use.provider),
        cache=wide * cached_values(architecture) * use.context,
        working=wide * (logits * architecture.vocabulary_size + use.prompt * layer),
        runtime=RUNTIME + A_TOKEN * architecture.vocabulary_size,
        cache_type="f32" if wide == 4 else "f16",
    )


def _copies(plan: Plan, provider: str) -> int:
    """FP16 weights are widened for kernels that have FP32 only."""
    if provider not in ON_CPU:
        return 0
    return sum(2 * row.nbytes for row in plan.rows if row.grid == "F16")
