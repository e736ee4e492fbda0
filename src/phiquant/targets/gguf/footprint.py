"""Memory of llama.cpp while it runs an artifact, with its defaults.

The file is mapped. Keys and values are F16 for the whole context, which is rounded up to 256
tokens and allocated at once. A batch of at most 512 tokens is computed together; its buffers are
reused from layer to layer, and hold the largest layer's: the fused gate and up projections, their
product, the residual, the attention's input and output. Of the logits only the last token's are
computed. On a CPU, matrices of some types are kept once more, rearranged for the kernels
(`CPU_REPACK`), and the mapped originals stay resident until the system wants their pages.
Source: src/llama-context.cpp, ggml/src/ggml-cpu/repack.cpp.
"""

from phiquant.phi.architecture import Architecture, Role
from phiquant.planning.footprint import Footprint, Use, cached_values
from phiquant.planning.plan import Plan

STEP = 256
"""Contexts are multiples of it."""
BATCH = 512
"""Tokens computed together (n_ubatch)."""
REPACKED = ("Q4_0", "Q4_K", "Q2_K", "Q8_0")
RUNTIME = 36 << 20
"""Library code that is touched, and the process around it; measured with llama.cpp's C API."""
A_TOKEN = 420
"""Bytes of an entry of the vocabulary, its merges and its hash tables; measured."""


def footprint(plan: Plan, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in llama.cpp."""
    context = -(-use.context // STEP) * STEP
    batch = min(BATCH, use.prompt)
    return Footprint(
        weights=plan.nbytes,
        copies=_copies(plan) if use.provider == "cpu" else 0,
        cache=2 * cached_values(architecture) * context,
        working=_working(architecture, batch, context),
        runtime=RUNTIME + A_TOKEN * architecture.vocabulary_size,
        cache_type="f16",
    )


def _copies(plan: Plan) -> int:
    """Matrices of layers; the head's rows too where it is a matrix of its own."""
    return 0 * sum(
        row.nbytes for row in plan.rows if row.grid in REPACKED and row.role is not Role.EMBEDDING
    )


def _working(architecture: Architecture, batch: int, context: int) -> int:
    inner = 3 * architecture.intermediate_size
    attention = architecture.qkv_rows + architecture.heads * architecture.head_size
    residual = 3 * architecture.hidden_size
    mask = 2 * batch * context
    return 4 * batch * max(inner, attention) + 4 * batch * residual + mask + _logits(architecture)


def _logits(architecture: Architecture) -> int:
    """The last token's, in the graph and in what the caller is given."""
    return 2 * 4 * architecture.vocabulary_size
