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
    """Raise RequestError for a tensor that `plan` quantizes, or that a forward pass over text
    multiplies, with a weight beyond LARGEST.
    """
    glances = recipe.quality == "fast" and any(map(_is_quantized, plan.rows))
    runs = glances or recipe.quality in ("balanced", "best")
    for row in plan.rows:
        if row.source is None or survey.largest[row.source] <= LARGEST:
            continue
        found = f"{row.source} has a weight of {survey.largest[row.source]:.3g}"
        if _is_quantized(row):
            raise RequestError(
                f"{found}, and what is to be quantized can have weights of at most {LARGEST:g}; is "
                "the file damaged? Choose `precision=fp32` to keep it as it is"
            )
        if runs:
            raise RequestError(
                f"{found}, and `quality={recipe.quality}` runs the network, whose weights can then "
                f"be {LARGEST:g} at most; is the file damaged? Choose `quality=data-free`, which "
                "looks at the weights alone"
            )


def _is_quantized(row: PlanRow) -> bool:
    """Whether the tensor has fewer bits than the least of floats."""
    return 8 * row.nbytes < 16 * row.weights
