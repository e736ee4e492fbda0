"""The grids among which each tensor of an MLX artifact may be stored.

mlx_lm reads bits and group of each module from config.json, so every matrix may have its own;
MLX has kernels for every number of bits. The upper end is the checkpoint's own float type.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from phiquant.phi.survey import Survey
from phiquant.planning.plan import PlanRow
from phiquant.quantization.grid import stored_bytes
from phiquant.targets.mlx.formats import AFFINE_GRIDS, FLOATS, GRIDS, Affine, MlxForm
from phiquant.targets.mlx.grids import BITS, GROUPS


def choices(row: PlanRow, form: MlxForm, survey: Survey) -> tuple[PlanRow, ...]:
    """`row` on every grid that it may have; none for what keeps its type."""
    if row.role is None or row.role.is_norm:
        return ()
    groups = [group for group in GROUPS if row.shape[-1] % group == 0]
    names = [Affine(bits, group).grid_name(survey.dtype) for bits in BITS for group in groups]
    return tuple(
        replace(row, grid=name, nbytes=stored_bytes(GRIDS[name], row.shape))
        for name in (*names, survey.dtype)
    )


def type_of(rows: Sequence[PlanRow]) -> str:
    """What config.json names as the default: the affine type that most weights have."""
    weights: Counter[str] = Counter()
    for row in rows:
        if row.grid in AFFINE_GRIDS:
            weights[AFFINE_GRIDS[row.grid].name] += row.weights
    if weights:
        return weights.most_common(1)[0][0]
    return next(name for name, dtype in FLOATS.items() if dtype == rows[0].grid)
