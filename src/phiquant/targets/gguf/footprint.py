"""Memory of llama.cpp while it runs an artifact, with its defaults.

The file is mapped. Keys and values are F16 for the whole context, which is rounded up to 256
tokens, and allocated at once. A batch of at most 512 tokens is computed together; its buffers
hold the fused gate and up projections, their product, the attention's projections, the residual
and what is added to it, and are used again for every layer. Logits are computed for the last token
only. On a CPU, matrices of layers of some types are kept once more, rearranged for the kernels
(`CPU_REPACK`); the mapped originals stay until the system wants their pages. (On Arm with
i8mm, recent releases rearrange Q8_0, Q5_K and Q6_K too.)
Source: src/llama-context.cpp, ggml/src/ggml-cpu/repack.cpp; issues 12149 and 19578 of llama.cpp.
"""

from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Role
from phiquant.planning.footprint import Footprint, Use, cached_values
from phiquant.planning.plan import Plan
from phiquant.targets.gguf.form import GgufForm

STEP = 256
"""Contexts are multiples of it."""
BATCH = 512
"""Tokens computed together (n_ubatch)."""
REPACKED = ("Q4_0", "Q4_K", "Q2_K")
EIGHT = 8
"""Rows that are interleaved; a matrix with other numbers of rows stays as it is."""
RUNTIME = 42 << 20
"""Python with the library loaded, of which the code is half (fitted)."""
A_TOKEN = 340
"""Bytes of an entry of the vocabulary, its merges and its hash tables (fitted)."""


def footprint(plan: Plan, form: GgufForm, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in llama.cpp."""
    context = -(-use.context // STEP) * STEP
    batch = min(BATCH, use.prompt)
    copies = _copies(plan) if use.provider == "cpu" else 0
    return Footprint(
        weights=plan.nbytes,
        copies=copies,
        cache=2 * cached_values(architecture) * context,
        working=_working(architecture, batch, context),
        runtime=RUNTIME + A_TOKEN * architecture.vocabulary_size,
        cache_type="f16",
        released=copies,
    )


def _copies(plan: Plan) -> int:
    return sum(
        row.nbytes
        for row in plan.rows
        if row.grid in REPACKED and row.role is not Role.EMBEDDING and row.shape[0] % EIGHT == 0
    )


def _working(architecture: Architecture, batch: int, context: int) -> int:
    values = (
        3 * architecture.intermediate_size + architecture.qkv_rows + 3 * architecture.hidden_size
    )
    mask = 2 * batch * context
    logits = 2 * 4 * architecture.vocabulary_size  # the graph's, and the caller's copy
    return 4 * batch * values + mask + logits
