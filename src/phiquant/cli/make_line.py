"""The line that makes what `recommend` chose."""

import shlex

from phiquant.cli.wording import in_options
from phiquant.recipe import Recipe
from phiquant.recommendation.candidates import Wish
from phiquant.recommendation.recommend import Recommendation


def making(recommendation: Recommendation, device: str | None, revision: str | None) -> str:
    """The command that makes the choice; empty where nothing was chosen.

    `device` is the device as it was typed; None where `quantize --device` could choose otherwise.
    `quantize` knows of a wish its context and targets; any other wish is spelt out as the recipe
    that it led to.
    """
    if recommendation.chosen is None:
        return ""
    wish, source = recommendation.wish, recommendation.outline.source
    words = ["phiquant", "quantize", source.hub_id or str(source.directory)]
    if revision is not None:
        words += ["--revision", revision]
    if device is not None and wish == Wish(wish.context, targets=wish.targets):
        words += ["--device", device]
        if wish.targets:
            words += ["--to", ",".join(wish.targets)]
    else:
        words += _recipe(recommendation.chosen.recipe)
    return shlex.join([*words, "--context", str(wish.context), "-o", "OUT"])


def _recipe(recipe: Recipe) -> list[str]:
    words = ["--to", recipe.target, "--type", recipe.form.type]
    for name, value in recipe.form.given.items():
        words += in_options(f"`{name}={value}`").split()
    return words
