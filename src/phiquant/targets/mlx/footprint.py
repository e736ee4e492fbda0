"""Memory of mlx_lm while it runs an artifact.

Weights are mapped or read once, and shared with the GPU. The cache has the activations' type and
grows in steps of 256 tokens; a prompt goes through in pieces of 2048 tokens. Not measured here:
there was no Mac at hand.
"""

from phiquant.phi.architecture import Architecture
from phiquant.planning.footprint import Footprint, Use, cached_values
from phiquant.planning.plan import Plan
from phiquant.targets.mlx.formats import MlxForm

RUNTIME = 250 << 20
"""Python, mlx and its kernels: an estimate."""
STEP = 256
PIECE = 2048


def footprint(plan: Plan, form: MlxForm, architecture: Architecture, use: Use) -> Footprint:
    """Peak memory of a plan's artifact in mlx_lm."""
    wide = 4 if plan.type == "fp32" else 2
    piece = min(PIECE, use.prompt)
    layer = (
        4 * architecture.hidden_size + architecture.qkv_rows + 3 * architecture.intermediate_size
    )
    scores = architecture.heads * min(piece, 256) * use.context
    return Footprint(
        weights=plan.nbytes,
        copies=0,
        cache=wide * cached_values(architecture) * (-(-use.context // STEP) * STEP),
        working=wide * (piece * layer + scores) + 4 * architecture.vocabulary_size,
        runtime=RUNTIME,
        cache_type="f32" if wide == 4 else "f16",
    )
