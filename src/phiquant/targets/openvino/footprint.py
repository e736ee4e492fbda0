"""Memory of openvino_genai's pipeline while it runs an artifact on a CPU.

The file of weights is mapped, and oneDNN keeps every matrix once more, rearranged, from the first
inference on. The paged cache grows with the sequence, in blocks of 32 tokens; its element type is
the model's own hint (see `profiles`): u8 with a scale and a zero point a head and token for
compressed artifacts. Only the last token's logits are computed.
"""

from phiquant.phi.architecture import Architecture
from phiquant.planning.footprint import Footprint, Use, cached_values
from phiquant.planning.plan import Plan

RUNTIME = 150 << 20
"""Libraries that are touched and the compiled graph; measured."""
A_TOKEN = 500
"""Bytes of an entry of the vocabulary; measured."""
BLOCK = 32
CACHE = {"fp32": ("f32", 4.0), "fp16": ("f16", 2.0)}


def footprint(plan: Plan, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in openvino_genai."""
    kind, width = CACHE.get(plan.type, ("u8", 1.0 + 8.0 / architecture.head_size))
    if use.provider != "cpu" and kind == "u8":
        kind, width = "f16", 2.0
    context = -(-use.context // BLOCK) * BLOCK
    layer = (
        4 * architecture.hidden_size + architecture.qkv_rows + 3 * architecture.intermediate_size
    )
    return Footprint(
        weights=plan.nbytes,
        copies=plan.nbytes if use.provider == "cpu" else 0,
        cache=int(width * cached_values(architecture)) * context,
        working=4 * (use.prompt * layer + architecture.vocabulary_size),
        runtime=RUNTIME + A_TOKEN * architecture.vocabulary_size,
        cache_type=kind,
    )
