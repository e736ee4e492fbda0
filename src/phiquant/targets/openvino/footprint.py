"""Memory of openvino_genai's pipeline while it runs an artifact on a CPU.

The file of weights is mapped, and from the first inference on oneDNN keeps every matrix that is
multiplied by once more, packed: compressed ones as they are, floats in the type that the plugin
computes in. That is FP32 for an FP32 artifact, run as `running` says, and bfloat16 for an FP16 one,
where the processor has it; FP16 weights are widened to FP32 before, and no more of the originals
counts as released than the copies take. The cache is paged and grows with the sequence; its element
type is the artifact's (see `profiles` and `running`): u8, with a scale and a zero point a head and
token, for compressed ones. A prompt goes through at once; of its logits only the last token's are
computed.
"""

from phiquant.phi.architecture import Architecture
from phiquant.planning.footprint import (
    Footprint,
    Use,
    cached_values,
    looked_up,
    multiplied,
    multiplied_weights,
)
from phiquant.planning.plan import Plan
from phiquant.targets.openvino.form import OpenVinoForm

RUNTIME = 130 << 20
"""Python with the libraries that are touched (fitted)."""
A_TOKEN = 500
"""Bytes of an entry of the vocabulary in the tokenizers' graphs (fitted)."""
A_LAYER = 900_000
"""Bytes of a layer's part of the compiled graph, its kernels included (fitted)."""
BLOCK = 32
CACHE = {"fp32": ("f32", 4), "fp16": ("f16", 2)}


def footprint(plan: Plan, form: OpenVinoForm, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in openvino_genai."""
    kind, width = CACHE.get(plan.type, ("u8", 1))
    on_cpu = use.provider == "cpu"
    if not on_cpu and kind == "u8":
        kind, width = "f16", 2
    context = -(-use.context // BLOCK) * BLOCK
    values = cached_values(architecture)
    scales = 8 * values // architecture.head_size if kind == "u8" else 0
    layer = 3 * architecture.intermediate_size + 2 * architecture.hidden_size
    copies = _copies(plan) if on_cpu else 0
    tables = A_TOKEN * architecture.vocabulary_size + A_LAYER * architecture.layers
    return Footprint(
        weights=plan.nbytes - looked_up(plan),
        copies=copies,
        cache=(width * values + scales) * context,
        working=4 * (use.prompt * layer + architecture.vocabulary_size),
        runtime=RUNTIME + tables,
        cache_type=kind,
        released=min(multiplied(plan), copies),
    )


def _copies(plan: Plan) -> int:
    """Packed matrices, and FP16 weights widened; these are then read in place of the mapped."""
    if plan.type == "fp16":
        return plan.nbytes + 2 * multiplied_weights(plan)
    return multiplied(plan)
