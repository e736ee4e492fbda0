"""The types among which each tensor of a GGUF file may be stored.

llama.cpp runs every tensor with the kernels of its own type, whatever the others have, so every
matrix may take every type whose blocks divide its rows. F32 is left out: F16 holds all that a
budget could want. A mixture that is no one's by name goes by the name of the type that most of
its weights have; llama.cpp only prints it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from phiquant.phi.survey import Survey
from phiquant.planning.plan import PlanRow
from phiquant.quantization.grid import stored_bytes
from phiquant.targets.gguf.form import GgufForm
from phiquant.targets.gguf.grids import GRIDS
from phiquant.targets.gguf.mixtures import BLOCK, FLOATS, MIXTURES


def choices(row: PlanRow, form: GgufForm, survey: Survey) -> tuple[PlanRow, ...]:
    """`row` on every type that it may have; none for what keeps its type."""
    if row.source is None or row.role is None or row.role.is_norm:
        return ()
    names = [name for name in BLOCK if name not in FLOATS and row.shape[-1] % BLOCK[name] == 0]
    # BF16 has the range that F16 lacks, but no kernels of its own on most processors.
    names.append("F16" if survey.fits_fp16(row.source) else "BF16")
    return tuple(
        replace(row, grid=name, nbytes=stored_bytes(GRIDS[name], row.shape)) for name in names
    )


def type_of(rows: Sequence[PlanRow]) -> str:
    """The named mixture that stands for `rows`."""
    weights: Counter[str] = Counter()
    for row in rows:
        weights[row.grid] += row.weights
    most = weights.most_common(1)[0][0]
    return most if most in MIXTURES else f"{most}_M"
