"""The plan of a recipe before any budget: the target's own, and what is protected beside it.

Rounding the values of attention costs the output more than rounding anything else of their size
(benchmarks/results/sensitivities.md). So where they can be stored apart, `balanced` and `best`
give them 8 bits. A type or a budget that is asked for says otherwise, and so does a model whose
query heads have values of their own: there they are 8% of the weights, and 8 bits no small matter.
"""

from phiquant.phi.architecture import Architecture
from phiquant.phi.survey import Survey
from phiquant.planning.parts import values_at_8_bits
from phiquant.planning.plan import Plan
from phiquant.recipe import Recipe
from phiquant.targets.table import target

NOTE = "attention's values have 8 bits and are stored apart from queries and keys (v_proj)"


def protects_values(recipe: Recipe, architecture: Architecture) -> bool:
    """Whether the values are to have 8 bits where the rest of their matrices has fewer."""
    chosen = recipe.type is not None or recipe.budget is not None
    shared = architecture.kv_heads < architecture.heads
    return (
        recipe.quality in ("balanced", "best")
        and not chosen
        and shared
        and target(recipe.target).apart
    )


def plan_of(recipe: Recipe, architecture: Architecture, survey: Survey) -> Plan:
    """What the recipe's target plans for it, with its values protected. Raises RequestError."""
    into = target(recipe.target)
    plan = into.plan(architecture, survey, recipe.form)
    if not protects_values(recipe, architecture):
        return plan
    protected = values_at_8_bits(plan, architecture, into.choices_for(recipe.form, survey))
    return protected if protected == plan else protected.with_notes((NOTE,))
