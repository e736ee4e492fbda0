"""Whether the weights are of a size that can be quantized at all.

Quantized formats store scales in 16 bits, and what calibrates takes squares and products of weights
in float32. One weight of 1e38 among ten million would overflow both. No model has any such weight:
it is the mark of a damaged file, or of a hostile one.
"""

from phiquant.errors import RequestError
from phiquant.phi.survey import Survey
from phiquant.planning.plan import Plan, PlanRow
from phiquant.recipe import Recipe

LARGEST = 2.0**14
"""A quarter of what FP16 holds; the weights of published models are below 100."""


def check_magnitudes(recipe: Recipe, plan: Plan, survey: Survey) -> None:
    """Raise RequestError for a tensor that `plan` quantizes, or that a calibrated run multiplies,
    with a weight beyond LARGEST.
    """
    for row in plan.rows:
        if row.source is None or survey.largest[row.source] <= LARGEST:
            continue
        if recipe.quality != "fast" or _is_quantized(row):
            raise RequestError(
                f"{row.source} has a weight of {survey.largest[row.source]:.3g}, and what is to be "
                f"quantized can have weights of at most {LARGEST:g}; is the file damaged? Choose "
                "`precision=fp32` to keep it as it is"
            )


def _is_quantized(row: PlanRow) -> bool:
    """Whether the tensor has fewer bits than the least of floats."""
    return 8 * row.nbytes < 16 * row.weights
