"""`Order`: everything that is asked for, checked before anything is located or fetched.

A recipe is valid by itself. Here it is seen whether several go together, and whether what they
are to rest on is at hand: a mistake in a word must not cost a download.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import InputError, RequestError
from phiquant.host.kinds import instance, optional, several
from phiquant.host.staging import check_destination
from phiquant.recipe import ImatrixFiles, Recipe

RECIPES = several(instance(Recipe, "a Recipe", 'give Recipe("gguf"), for instance'))
TEXT = optional(
    instance(CalibrationText, "a CalibrationText", "give CalibrationText(path) for a file")
)
MATRICES = optional(
    instance(ImatrixFiles, "ImatrixFiles", "give ImatrixFiles(read=path) for a file")
)


@dataclass(frozen=True, slots=True)
class Order:
    """Recipes for different targets, and what their roundings are to rest on.

    Raises RequestError for recipes that do not go together and for importance matrices that
    nothing can be done with as asked, InputError for files that are not there.
    """

    recipes: tuple[Recipe, ...]
    text: CalibrationText = field(default_factory=CalibrationText)
    imatrix: ImatrixFiles = field(default_factory=ImatrixFiles)

    def __post_init__(self) -> None:
        _check_together(self.recipes)
        _check_imatrix(self.qualities, self.text, self.imatrix)
        if self.text != CalibrationText() and not (self.reads_text or self.allocates):
            raise RequestError(
                "nothing that is asked for reads a calibration text: `quality=fast` glances at the "
                "text that is shipped, and data-free rounds from the weights alone; leave the text "
                "and its size out, or choose `quality=balanced`"
            )
        for name, path in (("text.path", self.text.path), ("imatrix.read", self.imatrix.read)):
            if path is not None and not Path(path).is_file():
                raise InputError(f"expected a file for `{name}`, found none at {path}")

    @property
    def qualities(self) -> frozenset[str]:
        """The qualities that the recipes ask for."""
        return frozenset(recipe.quality for recipe in self.recipes)

    @property
    def allocates(self) -> bool:
        """Whether a recipe has a budget, which is divided by what a text shows."""
        return any(recipe.budget is not None for recipe in self.recipes)

    @property
    def reads_text(self) -> bool:
        """Whether a calibration text is needed."""
        needed = self.qualities - {"data-free", "fast"}
        if self.imatrix.read is not None:
            needed -= {"balanced"}
        return bool(needed) or self.imatrix.write is not None

    def check_places(self, output: Path) -> None:
        """DestinationError or RequestError if what is to be written cannot go where it is to."""
        check_destination(output)
        if self.imatrix.write is None:
            return
        matrix = Path(self.imatrix.write)
        check_destination(matrix)
        if matrix.absolute() == output.absolute():
            raise RequestError(f"{output} cannot be the artifact and the importance matrix too")


def order(
    recipes: Recipe | Sequence[Recipe],
    text: CalibrationText | None = None,
    imatrix: ImatrixFiles | None = None,
) -> Order:
    """The order for a recipe, or for several. Raises as `Order` does."""
    if isinstance(recipes, Recipe):
        recipes = (recipes,)
    RECIPES.check(recipes=recipes)
    TEXT.check(text=text)
    MATRICES.check(imatrix=imatrix)
    return Order(tuple(recipes), text or CalibrationText(), imatrix or ImatrixFiles())


def _check_together(recipes: Sequence[Recipe]) -> None:
    names = [recipe.target for recipe in recipes]
    if not names or len(set(names)) != len(names):
        raise RequestError(
            "expected one or more recipes for different targets, found "
            f"{', '.join(names) or 'none'}; make two artifacts for one target in two jobs"
        )
    if len({recipe.rescaling for recipe in recipes if recipe.quality == "best"}) > 1:
        raise RequestError(
            "artifacts of the best quality in one job are rounded from one network, re-scaled or "
            "not; make those that are to keep their channels in a job of their own"
        )


def _check_imatrix(qualities: frozenset[str], text: CalibrationText, files: ImatrixFiles) -> None:
    if files.read is not None and files.write is not None:
        raise RequestError(
            "an importance matrix is read or written, not both: what is written is measured over "
            "the calibration text; leave `imatrix.read` or `imatrix.write` away"
        )
    if files.read is not None and "balanced" not in qualities:
        raise RequestError(
            "an importance matrix weighs the errors of `quality=balanced`; data-free rounds from "
            "the weights alone, fast by a glance at the text that is shipped, and best needs full "
            "moments, which only a calibration text gives"
        )
    if files.read is not None and text.path is not None and "best" not in qualities:
        raise RequestError(
            "expected an importance matrix or a calibration text, found both; leave "
            "`imatrix.read` or `text.path` away"
        )
