"""Follow one row of weights through the kernels of `phiquant.quantization.feedback`.

    python benchmarks/follow_feedback.py [--check]

Weights and inputs are real ones of `tests/weight_samples.py`, of the embedding of SmolLM2-135M with
its channels re-scaled: 64 columns of its rows, of which the first 40 are the layer's weight and the
others, each brought to a root mean square of 1 as a norm does it, are inputs. Fills the marked
parts of `src/phiquant/quantization/feedback/README.md` and draws `docs/pictures/feedback.svg`.
`--check` writes nothing, and ends with 1 where the page is not what it would be; a test does the
same.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from marked import run
from tables import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from phiquant.calibration.moments import Moments  # noqa: E402
from phiquant.quantization.affine import nearest_codes  # noqa: E402
from phiquant.quantization.feedback.columns import Feedback, round_with_feedback  # noqa: E402
from phiquant.quantization.feedback.descent import (  # noqa: E402
    errors_of,
    improve_codes,
    improve_parameters,
)
from phiquant.quantization.feedback.factors import damped  # noqa: E402
from phiquant.quantization.feedback.means import MeanFeedback, codes_with_means  # noqa: E402
from phiquant.quantization.feedback.rounder import Method, shrunk  # noqa: E402
from phiquant.quantization.feedback.two_sided import RowFeedback  # noqa: E402
from phiquant.quantization.grid import Floats, Levels  # noqa: E402
from phiquant.targets.gguf.grids import GRIDS, LegacyBlockGrid  # noqa: E402
from weight_samples import real_weights  # noqa: E402

PAGE = ROOT / "src/phiquant/quantization/feedback/README.md"
PICTURE = ROOT / "docs/pictures/feedback.svg"
ROWS = 40
COLUMNS = 64
ROW = 16
"""The row that is followed."""
SHARED = 0.8
"""How much two rows' outputs go together in the example of `two_sided`: made up."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Errors w - v of all rows, (rows, columns), and the levels that they come of."""

    errors: Floats
    levels: Levels


def grid() -> LegacyBlockGrid:
    q4_1 = GRIDS["Q4_1"]
    assert isinstance(q4_1, LegacyBlockGrid)
    return q4_1


@cache
def weights() -> Floats:
    return np.ascontiguousarray(real_weights(576)[:ROWS, :COLUMNS])


@cache
def inputs() -> Floats:
    rows = real_weights(576)[ROWS:, :COLUMNS]
    normed: Floats = rows / np.sqrt(np.mean(rows**2, axis=1, keepdims=True))
    return normed


@cache
def moment() -> Floats:
    """H, with what `rounder` does to it before it is factored."""
    moments = Moments(COLUMNS)
    moments.add(inputs())
    method = Method()
    return damped(shrunk(moments.second, method.shrinkage), method.damping)


@cache
def feedback() -> Feedback:
    return Feedback.of(moment(), grid().block)


@cache
def steps() -> dict[str, Rounded]:
    """The layer after each step, by the step's name."""
    levels = grid().fit(weights())
    nearest = errors_of(weights(), nearest_codes(weights(), levels, grid()), levels)
    roundings = {"nearest levels, no feedback": Rounded(nearest, levels)}
    codes, levels = round_with_feedback(weights(), feedback(), grid())
    roundings["feedback (`columns`)"] = Rounded(errors_of(weights(), codes, levels), levels)
    codes, levels = round_with_feedback(weights(), feedback(), grid(), Method().multiples)
    errors = errors_of(weights(), codes, levels)
    roundings["levels finer or wider (`multiples`)"] = Rounded(errors.copy(), levels)
    improve_codes(codes, errors, levels, (moment(), None), grid())
    roundings["codes improved (`descent`)"] = Rounded(errors.copy(), levels)
    levels = improve_parameters(codes, errors, levels, moment(), grid())
    roundings["parameters improved (`descent`)"] = Rounded(errors.copy(), levels)
    return roundings


def costs(errors: Floats) -> Floats:
    """E H eᵀ of each row."""
    costs: Floats = np.einsum("rj,jk,rk->r", errors, moment(), errors)
    return costs


def shares(errors: Floats) -> Floats:
    """What each column adds to the cost, (rows, columns) in rounding order: see `columns`."""
    ordered = errors[:, feedback().order]
    costs: Floats = feedback().penalties * (ordered @ feedback().factors) ** 2
    return costs


def content(words: str) -> str:
    """What belongs in a part of the page that begins with `words`."""
    return {
        "the moment": moment_table,
        "the columns": columns_table,
        "the costs": costs_table,
        "two rows": two_rows_table,
        "the means": means_table,
    }[words]()


ORDER = Table(("turn:", "column:", "H_jj:", "D_j:", "U to the next five columns"))


def moment_table() -> str:
    """The first six columns in rounding order."""
    order, factors = feedback().order, feedback().factors
    return ORDER.text(
        (
            str(turn + 1),
            str(order[turn]),
            f"{moment()[order[turn], order[turn]]:.3f}",
            f"{feedback().penalties[turn]:.3f}",
            " ".join(f"{value:+.2f}" for value in factors[turn, turn + 1 : turn + 6]),
        )
        for turn in range(6)
    )


TURNS = Table(
    ("turn:", "column:", "weight:", "due:", "wanted:", "code:", "stored as:", "error:",
     "added to the cost:")
)  # fmt: skip


def columns_table() -> str:
    """The first six turns of the row."""
    rounded = steps()["feedback (`columns`)"]
    order, factors = feedback().order, feedback().factors
    errors = rounded.errors[ROW, order]
    added = shares(rounded.errors)[ROW]
    lines = []
    for turn in range(6):
        column = order[turn]
        weight = weights()[ROW, column]
        due = float(errors[:turn] @ factors[:turn, turn])
        value = weight - errors[turn]
        group = column // grid().group
        scale, offset = rounded.levels.scale[ROW, group], rounded.levels.offset[ROW, group]
        numbers = (weight, due, weight + due)
        cells = [f"{number:+.4f}" for number in numbers]
        cells += [f"{(value - offset) / scale:.0f}", f"{value:+.4f}", f"{errors[turn]:+.4f}"]
        lines.append([str(turn + 1), str(column), *cells, f"{1e4 * added[turn]:.2f}"])
    return TURNS.text(lines)


COSTS = Table(("after", "cost of the row:", "beside nearest:", "all 40 rows:", "squared error:"))


def costs_table() -> str:
    """The row's cost after each step, all rows' beside that of nearest levels, and Σ e²."""
    first = costs(next(iter(steps().values())).errors)
    plain = float(np.sum(next(iter(steps().values())).errors ** 2))
    return COSTS.text(
        (
            name,
            f"{1e4 * costs(rounded.errors)[ROW]:.1f}",
            f"{costs(rounded.errors)[ROW] / first[ROW]:.3f}",
            f"{costs(rounded.errors).sum() / first.sum():.3f}",
            f"{float(np.sum(rounded.errors**2)) / plain:.3f}",
        )
        for name, rounded in steps().items()
    )


TWO_ROWS = Table(("two rows", "each row's own cost:", "tr(G E H Eᵀ):"))


def two_rows_table() -> str:
    """Two rows whose outputs matter together, rounded each alone and together."""
    outputs = np.float32([[1, SHARED], [SHARED, 1]])
    across = RowFeedback.of(outputs, 0.0)
    pair = weights()[ROW : ROW + 2]
    results = {}
    for name, factors in (("each on its own", None), ("together", across.factors)):
        codes, levels = round_with_feedback(pair[across.order], feedback(), grid(), (), factors)
        errors = errors_of(pair[across.order], codes, levels)
        if factors is not None:
            improve_codes(codes, errors, levels, (moment(), across.moment), grid())
        else:
            improve_codes(codes, errors, levels, (moment(), None), grid())
        both = float(np.trace(across.moment @ errors @ moment() @ errors.T))
        results[name] = (f"{1e4 * costs(errors).sum():.1f}", f"{1e4 * both:.1f}")
    return TWO_ROWS.text((name, *values) for name, values in results.items())


MEANS = Table(("codes", "Σ σ² e²:", "(Σ μ e)²:", "both:"))


def means_table() -> str:
    """What `balanced` does with the row: the two parts of its cost."""
    squares, mean = np.mean(inputs() ** 2, axis=0), np.mean(inputs(), axis=0)
    levels = grid().fit(weights(), squares)
    made = MeanFeedback.of(squares, mean)
    codes: Mapping[str, np.ndarray] = {
        "nearest": nearest_codes(weights(), levels, grid()),
        "with the means' feedback": codes_with_means(weights(), levels, made, grid()),
    }
    lines = []
    for name, chosen in codes.items():
        error = errors_of(weights(), chosen, levels)[ROW]
        varied = 1e4 * float((squares - mean**2) @ error**2)
        steady = 1e4 * float(mean @ error) ** 2
        lines.append((name, f"{varied:.2f}", f"{steady:.2f}", f"{varied + steady:.2f}"))
    return MEANS.text(lines)


def draw(path: Path) -> None:
    """The factor U, and how the row's cost grows column by column after each step."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "feedback"  # the same ids every time
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(10, 4.2), width_ratios=(1, 1.5), layout="constrained"
    )
    factors = np.triu(feedback().factors, 1)
    image = left.imshow(factors, cmap="RdBu", vmin=-0.5, vmax=0.5)
    figure.colorbar(image, ax=left, shrink=0.8)
    left.set_xlabel("column that makes good, in rounding order")
    left.set_ylabel("column that errs")
    left.set_title("U: what an error passes on")
    turns = np.arange(1, COLUMNS + 1)
    shown = list(steps().items())
    for (name, rounded), colour in zip(
        (shown[0], shown[1], shown[-1]), ("0.5", "tab:blue", "tab:red"), strict=True
    ):
        grown = 1e4 * np.cumsum(shares(rounded.errors)[ROW])
        right.step(turns, grown, where="post", color=colour, label=name.replace("`", ""))
    right.axvline(grid().block + 0.5, color="0.8", linestyle=":", label="the second block begins")
    right.set_xlabel("columns, in rounding order")
    right.set_ylabel("cost so far, 1e-4")
    right.set_ylim(bottom=0)
    right.legend(fontsize=8)
    right.set_title("How the row's cost e H eᵀ grows")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    run(__doc__, {PAGE: content}, lambda: draw(PICTURE))
