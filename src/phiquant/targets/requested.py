"""Which of a target's types a recipe asks for, by name or by precision."""

from collections.abc import Container, Mapping

from phiquant.errors import RequestError
from phiquant.recipe import PRECISIONS, Precision, Recipe


def requested_type(
    recipe: Recipe,
    types: Container[str],
    defaults: Mapping[Precision, str],
    runtime: str,
    choice: str,
) -> str:
    """The name among `types`; one of `defaults`, by precision, where the recipe names no type.

    Raises RequestError for a type or a precision that there is not: `runtime` has no such type,
    and `choice` says in words what there is to choose.
    """
    if recipe.type is None:
        if recipe.precision not in defaults:
            raise RequestError(
                f"expected a precision among {', '.join(PRECISIONS)}, found {recipe.precision!r}"
            )
        return defaults[recipe.precision]
    if recipe.type not in types:
        raise RequestError(f"{runtime} has no type {recipe.type!r}; choose {choice}")
    return recipe.type
