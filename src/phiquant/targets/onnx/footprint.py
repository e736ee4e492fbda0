"""Memory of onnxruntime-genai while it runs an artifact.

The file of weights is mapped, and every matrix packed for the kernels, the largest held twice for
a moment; the originals are let go, and of a table that is only looked up in hardly a page is
touched. The cache is one shared buffer a layer for `max_length` tokens, of the activations' type
(FP32 on CPUs). A prompt goes through the graph at once: logits for every one of its tokens, unless
the artifact gives the last only, beside what is live in the widest layer. So does a sequence that
reaches 4,097 tokens while it grows: for models of the type "phi3" it is then computed anew, whole,
with LongRoPE's long factors or without. The arena that holds it extends by powers of two, and so
holds up to twice of what is needed.
In the form of standard operators (`qdq`) the cache is no shared buffer: what was and what will be
lie beside each other. Attention holds the products of all queries with all keys twice, and the
matrices of layers are packed beside the originals, which constant folding keeps.
Source: onnxruntime's bfc_arena (kNextPowerOfTwo); onnxruntime-genai's kv_cache, logits, and
phi3_rope_threshold_ in generators.cpp.
"""

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role
from phiquant.planning.footprint import Footprint, Use, cached_values, looked_up
from phiquant.planning.plan import Plan
from phiquant.targets.onnx.formats import ON_CPU, OnnxForm

RUNTIME = 66 << 20
"""Python with the libraries that are touched (fitted)."""
A_TOKEN = 600
"""Bytes of an entry of the vocabulary, read once for each of its two lookups (fitted)."""
ARENA = 2
SCORES = 2
"""Copies of a layer's attention scores that standard operators hold (fitted)."""
COMPUTED_ANEW = 4097
"""Tokens of a growing sequence that onnxruntime-genai computes anew."""


def footprint(plan: Plan, form: OnnxForm, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in onnxruntime-genai."""
    wide = 4 if use.provider in ON_CPU else 2
    together = _together(use)
    logits = 1 if form.last_logits else together
    layer = 2 * architecture.hidden_size + 4 * architecture.intermediate_size
    values = wide * cached_values(architecture)
    cache = values * use.context
    working = wide * (logits * architecture.vocabulary_size + ARENA * together * layer)
    if form.qdq:
        cache *= 2
        working += SCORES * wide * architecture.heads * together**2
        # With the prompt the rest of the cache is not there yet.
        working = max(0, working - 2 * values * max(0, use.context - together))
    packing = _widened(plan, use.provider) * max(row.nbytes for row in plan.rows)
    return Footprint(
        weights=plan.nbytes - looked_up(plan),
        copies=_copies(plan, form, use.provider),
        cache=cache,
        working=max(working, packing - cache),
        runtime=RUNTIME + A_TOKEN * architecture.vocabulary_size,
        cache_type="f32" if wide == 4 else "f16",
    )


def _together(use: Use) -> int:
    """The most tokens that go through the graph at once."""
    if use.context < COMPUTED_ANEW or use.provider == "dml":
        return use.prompt
    return max(use.prompt, COMPUTED_ANEW)


def _copies(plan: Plan, form: OnnxForm, provider: str) -> int:
    """FP16 weights are widened for kernels that have FP32 only; packing a float matrix leaves the
    original of a table that is looked up in too. See the head for `qdq`.
    """
    if form.qdq and form.blocks is not None:
        return sum(row.nbytes for row in plan.rows if row.role not in (Role.EMBEDDING, Role.HEAD))
    if provider not in ON_CPU or plan.type not in ("fp16", "fp32"):
        return 0
    tied = not any(row.role is Role.HEAD for row in plan.rows)
    table = sum(row.nbytes for row in plan.rows if row.role is Role.EMBEDDING and tied)
    return (plan.nbytes if plan.type == "fp16" else 0) + table


def _widened(plan: Plan, provider: str) -> int:
    return 2 if plan.type == "fp16" and provider in ON_CPU else 1
