"""How much a text shows by its length: the loss of INT4 artifacts by the tokens looked at.

    python benchmarks/tokens.py [--model moved] [--checkpoints DIRECTORY]

Every row rounds the demo model anew, from the weights alone, after the glance of `fast`, or by what
so many sequences of so many tokens of the shipped text show (`balanced`), to one type of every
target. Mean KL divergence is that of the reference forward over the decoded weights, on the
held-out text of `accuracy.py`. Writes `results/tokens.md`, after every row anew.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demo_models import MODELS, demo_model
from fidelity import WINDOW, Loss, loss_of_weights, truth_of
from machine import listed, our_versions
from tables import Table, line, page

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.job.evidence import GLANCE
from phiquant.job.making import quantize
from phiquant.recipe import Recipe
from phiquant.targets.table import target

ROOT = Path(__file__).resolve().parent.parent
TYPES = (
    Recipe("gguf", type="Q4_K_M"),
    Recipe("gguf", type="Q4_0"),
    Recipe("onnx", type="int4-b32"),
    Recipe("openvino", type="int4-sym-g64"),
    Recipe("mlx", type="4bit-g64"),
)
SIZES = ((1, 64), (8, 8), (1, 256), (4, 64), (8, 32), (2, 512), (8, 512), (32, 512))
LOSSES = Table(("", "tokens:", *(f"{recipe.target} {recipe.type}:" for recipe in TYPES)))


@dataclass(frozen=True, slots=True)
class Look:
    """A row: how every recipe is changed, and the text."""

    title: str
    tokens: int
    recipes: Sequence[Recipe]
    text: CalibrationText | None = None


def looks() -> list[Look]:
    glance = GLANCE[0] * GLANCE[1]
    kept = [replace(recipe, rescaling=False) for recipe in TYPES]
    blind = [replace(recipe, quality="data-free") for recipe in TYPES]
    asked = [replace(recipe, quality="balanced") for recipe in TYPES]
    return [
        Look("`data-free`", 0, blind),
        Look("`fast`: {} x {}".format(*GLANCE), glance, TYPES),
        Look("`fast --no-rescaling`", glance, kept),
        *(
            Look(f"`balanced`: {count} x {length}", count * length, asked, text)
            for count, length in SIZES
            for text in [CalibrationText(None, count, length)]
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--windows", type=int, default=24, help=f"of {WINDOW} tokens")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "accuracy")
    parser.add_argument("--checkpoints", type=Path, help="where the demo models lie already")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    path = demo_model(options.model, options.work, options.checkpoints)
    truth = truth_of(path, options.windows)
    parts = [
        "# What a text shows, by its length",
        f"Mean KL divergence in nats a token, ± its standard error: {options.model} demo model, "
        f"{options.windows} x {WINDOW} tokens judge. Rows share these tokens, so differences are "
        "known better than the errors say.",
        f"Ours: {listed(our_versions())}.",
    ]
    rows = []
    for look in looks():
        losses = [loss_of(path, recipe, look.text, truth) for recipe in look.recipes]
        means = (f"{loss.mean:.4f} ± {loss.mean_error:.4f}" for loss in losses)
        rows.append((look.title, str(look.tokens), *means))
        print(line(rows[-1]), flush=True)
        (options.results / "tokens.md").write_text(page([*parts, LOSSES.text(rows)]))


def loss_of(
    path: Path, recipe: Recipe, text: CalibrationText | None, truth: ReferenceFigures
) -> Loss:
    """What the artifact of a recipe loses."""
    with tempfile.TemporaryDirectory() as directory:
        (made,) = quantize(path, recipe, Path(directory) / "artifact", text=text)
        artifact = target(recipe.target).open(made.path)
        return loss_of_weights(artifact, made.plan.nbytes, made.plan.type, truth)


if __name__ == "__main__":
    main()
