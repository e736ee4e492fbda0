"""The grids among which each matrix of an ONNX artifact may be stored.

Every MatMulNBits and GatherBlockQuantized node states bits and block of its own, and has zero
points or not. Left out is what the runtime does not take or takes slowly:

- 8 bits on a CPU below accuracy level 4: the matrix is then unpacked anew for every product, and
  a token takes over a hundred times as long (3072 x 3072, ONNX Runtime 1.26: 70 ms, not 0.2).
- In the standard form, an embedding of 4 bits and 4-bit matrices with an odd number of rows, which
  cannot be stored transposed; see `layout`.
- Floats: on a CPU they are 32 bits, and 8 bits in blocks of 16 lose next to nothing.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from phiquant.phi.network.parts import Role
from phiquant.phi.survey import Survey
from phiquant.planning.plan import PlanRow
from phiquant.quantization.grid import stored_bytes
from phiquant.targets.onnx.formats import GRIDS, ON_CPU, BlockFormat, OnnxForm
from phiquant.targets.onnx.grids import BITS, BLOCKS, BlockwiseGrid


def choices(row: PlanRow, form: OnnxForm, survey: Survey) -> tuple[PlanRow, ...]:
    """`row` on every grid that it may have; none for what keeps its type."""
    if row.role is None or row.role.is_norm:
        return ()
    names = [
        BlockFormat(bits, block, symmetric).grid_name(form.activations)
        for bits in _bits(row, form)
        for block in BLOCKS
        if row.shape[1] % block == 0
        for symmetric in (False, True)
    ]
    return tuple(
        replace(row, grid=name, nbytes=stored_bytes(GRIDS[name], row.shape)) for name in names
    )


def type_of(rows: Sequence[PlanRow]) -> str:
    """The quantized type that most weights have, a float type if none is quantized."""
    weights: Counter[str] = Counter()
    for row in rows:
        grid = GRIDS[row.grid]
        if isinstance(grid, BlockwiseGrid):
            weights[grid.name] += row.weights
    return weights.most_common(1)[0][0] if weights else f"fp{rows[0].grid[1:]}"


def _bits(row: PlanRow, form: OnnxForm) -> tuple[int, ...]:
    if form.qdq:
        whole_bytes = row.role is Role.EMBEDDING or row.shape[0] % 2 == 1
        return (8,) if whole_bytes else BITS
    if form.provider in ON_CPU and form.accuracy_level != 4:
        return (4,)
    if row.role is Role.EMBEDDING and form.embedding_bits == 8:
        return (8,)
    return BITS
