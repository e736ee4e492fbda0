"""The grids among which each matrix of an OpenVINO artifact may be stored.

Every weight is a constant with a subgraph of its own that decodes it, so CPU and GPU take any
mixture of 4 and 8 bits, symmetric or not, per channel or in groups, embedding and head included.
An NPU takes symmetric weights in groups of 128 or per channel. FP16 is the upper end.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from phiquant.phi.survey import Survey
from phiquant.planning.plan import PlanRow
from phiquant.targets.openvino.form import OpenVinoForm
from phiquant.targets.openvino.formats import COMPRESSED, FLOAT_GRIDS, INTEGER_GRIDS, Compressed
from phiquant.targets.openvino.parts import stored_constants


def choices(row: PlanRow, form: OpenVinoForm, survey: Survey) -> tuple[PlanRow, ...]:
    """`row` on every grid that it may have; none for what keeps its type."""
    if row.source is None or row.role is None or row.role.is_norm:
        return ()
    columns = row.shape[-1]
    npu = form.device == "NPU"
    names = [
        kind.grid.name
        for kind in COMPRESSED.values()
        if columns % 8 == 0
        and (not kind.group or columns % kind.group == 0)
        and not (npu and (not kind.symmetric or kind.group not in (0, 128)))
    ]
    if survey.fits_fp16(row.source):
        names.append("f16")
    return tuple(_on(row, name) for name in names)


def type_of(rows: Sequence[PlanRow]) -> str:
    """The compressed type that most weights have, a float type if none is compressed."""
    weights: Counter[str] = Counter()
    for row in rows:
        if row.grid not in FLOAT_GRIDS:
            grid = INTEGER_GRIDS[row.grid]
            weights[Compressed(grid.bits, grid.symmetric, grid.group).name] += row.weights
    return weights.most_common(1)[0][0] if weights else "fp16"


def _on(row: PlanRow, grid: str) -> PlanRow:
    moved = replace(row, grid=grid)
    return replace(moved, nbytes=sum(part.nbytes for part in stored_constants(moved)))
