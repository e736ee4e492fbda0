"""Follow one group of weights through the kernels of `phiquant.quantization.search`.

    python benchmarks/follow_search.py [--check]

The group are 32 real weights of `tests/weight_samples.py`: of the embedding of SmolLM2-135M, its
channels re-scaled. The kernels are called one by one, and their arrays looked at in
between; at the end stands what the search gives by itself, which is checked. Fills the marked parts
of `src/phiquant/quantization/search/README.md` and draws `docs/pictures/search.svg`. `--check`
writes nothing, and ends with 1 where the page is not what it would be; a test does the same.
"""

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from marked import run
from numba import njit
from tables import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from phiquant.quantization.floats import FLOAT_TYPES  # noqa: E402
from phiquant.quantization.grid import Floats  # noqa: E402
from phiquant.quantization.search import lanes as rows  # noqa: E402
from phiquant.quantization.search.lanes import (  # noqa: E402
    LANES,
    MOMENTS,
    PARAMETERS,
    UNITS,
    Lanes,
    Rules,
    accumulate,
    load,
    measure,
)
from phiquant.quantization.search.one_level import (  # noqa: E402
    search,
    search_levels,
    search_zero_points,
)
from phiquant.quantization.search.proposals import (  # noqa: E402
    follow,
    keep,
    propose_by_kind,
)
from phiquant.quantization.search.scan import (  # noqa: E402
    PRODUCTS,
    ROWS,
    SQUARES,
    ZERO_CODE,
    StartPair,
    forget_proposal,
    scan,
    take_start,
)
from phiquant.quantization.search.starts import start_aligned, start_by_kind  # noqa: E402
from phiquant.quantization.search.two_level import search_super_levels  # noqa: E402
from phiquant.targets.gguf.grids import GRIDS, LegacyBlockGrid, SuperBlockGrid  # noqa: E402
from phiquant.targets.onnx.grids import BlockwiseGrid  # noqa: E402
from weight_samples import real_weights  # noqa: E402

PAGE = ROOT / "src/phiquant/quantization/search/README.md"
PICTURE = ROOT / "docs/pictures/search.svg"
F16 = FLOAT_TYPES["F16"]
F32 = FLOAT_TYPES["F32"]
ALIKE = np.empty(0, np.float32)
"""No importance: all weights alike."""
GROUP = slice(128, 160)
"""Which of the first row's weights are followed."""
ALIGNED = -1
"""The start that is not in the table: see `start_aligned`."""


@njit
def load_and_measure(weights: Floats, lanes: Lanes, rules: Rules) -> None:
    load(weights, 0, lanes, rules)
    measure(lanes)


@njit
def begin(lanes: Lanes, rules: Rules, k: int) -> None:
    if k < 0:
        start_aligned(lanes, rules)
    else:
        start_by_kind(lanes, rules, k)


@njit
def propose_alone(lanes: Lanes, rules: Rules) -> None:
    forget_proposal(lanes)
    propose_by_kind(lanes, rules)


@njit
def propose_again(lanes: Lanes, rules: Rules) -> None:
    propose_by_kind(lanes, rules)


@njit
def go_on(lanes: Lanes) -> None:
    follow(lanes.p)


@njit
def look(lanes: Lanes, rules: Rules) -> None:
    accumulate(lanes, rules)
    keep(lanes)


@njit
def scan_both(lanes: Lanes, rules: Rules, pair: StartPair, k: int) -> None:
    start_by_kind(lanes, rules, k)
    take_start(lanes, rules, pair.a)
    take_start(lanes, rules, pair.b)
    scan(lanes, rules, pair)


@dataclass(frozen=True, slots=True)
class Step:
    """Levels of the group and their squared error, as the weights are, not in lane units."""

    scale: float
    offset: float
    error: float


@dataclass(frozen=True, slots=True)
class Trace:
    """What the kernels did with the group."""

    weights: Floats
    unit: float
    starts: dict[int, tuple[Step, Step]]
    """By number of the start: its levels, and those that its least-squares step proposes."""
    refits: tuple[Step, ...]
    moments: dict[str, float]
    """Of the first start, in lane units."""


class Bench:
    """Lanes with one group in them: the first lane's is looked at."""

    def __init__(self, weights: Floats, rules: Rules) -> None:
        self.rules = rules
        size = weights.size
        self.lanes = Lanes(
            np.empty(size * LANES, np.float32),
            np.ones(size * LANES, np.float32),
            np.zeros(PARAMETERS, np.float32),
            np.zeros(MOMENTS, np.float32),
            np.zeros(UNITS, np.float32),
        )
        load_and_measure(weights, self.lanes, rules)

    @property
    def unit(self) -> float:
        return float(self.lanes.u[rows.UNIT])

    def step(self, scale: int, offset: int, error: float) -> Step:
        """Levels by the rows that hold them, and an error in lane units."""
        p, unit = self.lanes.p, self.unit
        return Step(float(p[scale]) * unit, float(p[offset]) * unit, error * unit**2)

    def present(self) -> Step:
        return self.step(rows.SCALE, rows.OFFSET, float(self.lanes.m[rows.E]))

    def proposed(self) -> Step:
        return self.step(rows.NEXT_SCALE, rows.NEXT_OFFSET, float(self.lanes.p[rows.NEXT_ERROR]))

    def best(self) -> Step:
        return self.step(rows.BEST_SCALE, rows.BEST_OFFSET, float(self.lanes.p[rows.BEST_ERROR]))


@cache
def weights_of_a_row() -> Floats:
    """The first 256 weights: one super-block, a group of which is followed."""
    return np.ascontiguousarray(real_weights(576)[0, :256])


def legacy_grid() -> LegacyBlockGrid:
    grid = GRIDS["Q4_1"]
    assert isinstance(grid, LegacyBlockGrid)
    return grid


@cache
def trace() -> Trace:
    """The group's way through the search of Q4_1."""
    weights, plan = weights_of_a_row()[GROUP], legacy_grid().search
    bench = Bench(weights, plan.rules(F16))
    starts, moments = {}, {}
    for k in range(ALIGNED, len(plan.starts)):
        begin(bench.lanes, bench.rules, k)
        accumulate(bench.lanes, bench.rules)
        if k == 0:
            names = ("C1", "C2", "R0", "R1", "E")
            moments = {name: float(bench.lanes.m[getattr(rows, name)]) for name in names}
        present = bench.present()
        propose_alone(bench.lanes, bench.rules)
        starts[k] = present, bench.proposed()
    best = min(starts, key=lambda k: starts[k][1].error)
    begin(bench.lanes, bench.rules, best)
    accumulate(bench.lanes, bench.rules)
    propose_alone(bench.lanes, bench.rules)
    refits = []
    for _ in range(plan.refits):
        go_on(bench.lanes)
        look(bench.lanes, bench.rules)
        refits.append(bench.present())
        propose_again(bench.lanes, bench.rules)
    scale, offset = search_levels(weights[None], ALIKE, plan, F16)
    levels = bench.best()
    assert (levels.scale, levels.offset) == (float(scale[0, 0]), float(offset[0, 0]))
    return Trace(weights, bench.unit, starts, tuple(refits), moments)


def plain() -> Step:
    """The range of the group divided evenly, both parameters rounded as stored: no search."""
    weights = weights_of_a_row()[GROUP]
    low, high = float(weights.min()), float(weights.max())
    scale, offset = float(np.float16((high - low) / 15)), float(np.float16(low))
    return Step(scale, offset, error_of(weights, scale, offset))


def error_of(weights: Floats, scale: float, offset: float) -> float:
    return float(((weights - decoded(weights, scale, offset)) ** 2).sum())


def codes_of(weights: Floats, scale: float, offset: float, top: int = 15) -> Floats:
    return np.clip(np.rint((weights - np.float32(offset)) / np.float32(scale)), 0, top)


def decoded(weights: Floats, scale: float, offset: float) -> Floats:
    values: Floats = codes_of(weights, scale, offset) * np.float32(scale) + np.float32(offset)
    return values


def best_of_mesh() -> Step:
    """The least error on a fine mesh of scales and offsets that are not rounded."""
    weights = weights_of_a_row()[GROUP].astype(np.float64)
    span, least = np.ptp(weights), weights.min()
    best = Step(0, 0, float("inf"))
    for scale in span / np.linspace(12, 18, 400):
        for offset in least + span * np.linspace(-0.05, 0.3, 400):
            codes = np.clip(np.rint((weights - offset) / scale), 0, 15)
            error = float(((weights - offset - scale * codes) ** 2).sum())
            if error < best.error:
                best = Step(float(scale), float(offset), error)
    return best


def content(words: str) -> str:
    """What belongs in a part of the page that begins with `words`."""
    return {
        "the weights": listed_weights,
        "the starts": starts_table,
        "the moments": moments_table,
        "the refits": refits_table,
        "the codes": codes_table,
        "a zero point": zero_point_table,
        "a super-block": super_block_table,
    }[words]()


def listed_weights() -> str:
    numbers = [f"{weight:+.4f}" for weight in trace().weights]
    lines = [" ".join(numbers[at : at + 8]) for at in range(0, 32, 8)]
    return "\n".join(["```", *lines, "```"])


def titled(k: int) -> str:
    if k == ALIGNED:
        return "0 and the extreme weight are levels"
    steps, cut = legacy_grid().search.starts[k]
    where = {0.0: "at the upper end", 1.0: "at the lower end"}.get(cut, f"{cut:.0%} below")
    return f"range / {steps:g}, cut {where}"


STEPS = Table(("start", "scale:", "offset:", "error:", "proposed scale:", "offset:", "error:"))


def starts_table() -> str:
    """The aligned start, the plain one, and the five whose steps lead to the least errors."""
    starts = trace().starts
    best = sorted(starts, key=lambda k: starts[k][1].error)[:4]
    plain_start = legacy_grid().search.starts.index((15.0, 0.0))
    shown = [*dict.fromkeys([ALIGNED, plain_start, *reversed(best)])]
    return STEPS.text((titled(k), *cells(starts[k][0]), *cells(starts[k][1])) for k in shown)


def cells(step: Step) -> tuple[str, str, str]:
    return f"{step.scale:.5f}", f"{step.offset:+.5f}", f"{1e4 * step.error:.2f}"


def moments_table() -> str:
    table = Table(tuple(f"{name}:" for name in trace().moments))
    return table.text([[f"{value:.4g}" for value in trace().moments.values()]])


REFITS = Table(("levels", "scale:", "offset:", "error:", "beside no search:"))


def refits_table() -> str:
    whole = trace()
    best = min((proposal for _, proposal in whole.starts.values()), key=lambda step: step.error)
    named = {
        "no search: least to greatest weight": plain(),
        "best proposal, codes held": best,
        **{f"refit {at}, codes chosen anew": step for at, step in enumerate(whole.refits, 1)},
        "best on a mesh of 160,000 unrounded levels": best_of_mesh(),
    }
    return REFITS.text(
        (name, *cells(step), f"{step.error / plain().error:.3f}") for name, step in named.items()
    )


CODES = Table(("weight:", "code:", "decoded:", "error:"))


def codes_table() -> str:
    """What is stored of the first six weights."""
    levels = min(trace().refits, key=lambda step: step.error)
    weights = trace().weights[:6]
    codes = codes_of(weights, levels.scale, levels.offset)
    values = decoded(weights, levels.scale, levels.offset)
    return CODES.text(
        (f"{weight:+.4f}", f"{code:.0f}", f"{value:+.4f}", f"{weight - value:+.4f}")
        for weight, code, value in zip(weights, codes, values, strict=True)
    )


SCANNED = Table(("start", "zero point z:", "Σ d²:", "Σ x d:", "scale Σ x d / Σ d²:", "error:"))


def zero_point_table() -> str:
    """The starts of ONNX's blocks of 128, scanned; the sums are in lane units."""
    grid = BlockwiseGrid(4, 128, False, F32)
    plan, weights = grid._search(), weights_of_a_row()[:128]
    rules = plan.rules(F32, zero_point=True, alike=True)
    assert rules.scanned
    bench = Bench(weights, rules)
    pair = StartPair(np.zeros(ROWS, np.float32), np.zeros(ROWS, np.float32))
    energy = float((weights.astype(np.float64) ** 2).sum())
    lines = []
    for k in range(len(plan.starts)):
        bench.lanes.p[rows.NEXT_ERROR : rows.NEXT_ERROR + LANES] = rows.FAR
        scan_both(bench.lanes, rules, pair, k)
        step = bench.proposed()
        steps, cut = plan.starts[k]
        sums = (f"{pair.a[SQUARES]:.0f}", f"{pair.a[PRODUCTS]:.3f}")
        zero = f"{pair.a[ZERO_CODE]:.0f}"
        error = f"{1e4 * (step.error + energy):.2f}"
        name = f"range / {steps:g}, cut {cut:g}"
        lines.append((step.error, (name, zero, *sums, f"{step.scale:.5f}", error)))
    scale, zero_point = search_zero_points(weights[None], ALIKE, plan, F32)
    values = scale * (np.clip(np.rint(weights / scale + zero_point), 0, 15) - zero_point)
    lost = f"{1e4 * float(((weights - values) ** 2).sum()):.2f}"
    last = ("after two refits", f"{zero_point[0, 0]:.0f}", "", "", f"{scale[0, 0]:.5f}", lost)
    shown = sorted(lines, key=lambda item: -item[0])
    return SCANNED.text([*(row for _, row in (shown[0], *shown[-3:])), last])


GROUPS = Table(
    ("group", "free scale:", "free offset:", "integer scale:", "integer minimum:", "decoded scale:",
     "decoded offset:")
)  # fmt: skip


def super_block_table() -> str:
    """The 256 weights as one super-block of Q4_K."""
    grid = GRIDS["Q4_K"]
    assert isinstance(grid, SuperBlockGrid)
    weights = weights_of_a_row()[None]
    scale, offset = np.empty((2, 1, 8), np.float32)
    search(weights[0], ALIKE, grid.search.rules(F16)[0], scale[0], offset[0])
    levels = search_super_levels(weights, ALIKE, grid.search, F16)
    unit, minimum_unit = float(levels.units[0, 0]), float(levels.minimum_units[0, 0])
    table = GROUPS.text(
        (
            str(k),
            f"{scale[0, k]:.5f}",
            f"{offset[0, k]:+.5f}",
            str(levels.subs[0, k]),
            str(levels.minima[0, k]),
            f"{unit * levels.subs[0, k]:.5f}",
            f"{-minimum_unit * levels.minima[0, k]:+.5f}",
        )
        for k in range(8)
    )
    return f"Units: d = {unit:.6f}, dmin = {minimum_unit:.6f}.\n\n{table}"


def draw(path: Path) -> None:
    """The group beside its levels without and with the search; and every start's error."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "search"  # the same ids every time
    whole = trace()
    figure = pyplot.figure(figsize=(11, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    steps = {"no search": plain(), "searched": min(whole.refits, key=lambda step: step.error)}
    for at, (name, step) in enumerate(steps.items()):
        draw_levels(figure.add_subplot(grid[at, 0]), name, whole.weights, step)
    draw_starts(figure.add_subplot(grid[:, 1]), whole)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def draw_levels(axes: Any, name: str, weights: Floats, step: Step) -> None:  # noqa: ANN401
    """Levels as lines, a dot a weight, and from each to its level what is lost."""
    axes.vlines(step.offset + step.scale * np.arange(16), -1, weights.size, color="0.8")
    places = np.arange(weights.size)
    values = decoded(weights, step.scale, step.offset)
    axes.hlines(places, values, weights, color="tab:red", linewidth=2)
    axes.plot(weights, places, "o", markersize=3.5, color="tab:blue")
    axes.set_xlim(-0.2, 0.16)
    axes.set_yticks([])
    axes.set_xlabel("weight")
    axes.set_title(f"{name}: squared error {1e4 * step.error:.1f}e-4", fontsize=10)


def draw_starts(axes: Any, whole: Trace) -> None:  # noqa: ANN401 (matplotlib is optional)
    order = sorted(whole.starts, key=lambda k: whole.starts[k][1].error)
    begun = [1e4 * whole.starts[k][0].error for k in order]
    proposed = [1e4 * whole.starts[k][1].error for k in order]
    places = range(len(order))
    axes.vlines(places, proposed, begun, color="0.75", linewidth=1)
    axes.plot(places, begun, "o", color="0.45", markersize=4, label="a start")
    axes.plot(places, proposed, "v", color="tab:blue", markersize=5, label="its least-squares step")
    for number, step in enumerate(whole.refits, 1):
        label = "refits of the best step" if number == 1 else None
        axes.plot([-number * 0.8], [1e4 * step.error], "s", color="tab:red", label=label)
    axes.axhline(1e4 * plain().error, color="0.6", linestyle=":", label="no search")
    axes.set_xticks([])
    axes.set_xlabel("starts, by what they lead to")
    axes.set_ylabel("squared error, 1e-4")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    axes.set_title("What each start leads to")


if __name__ == "__main__":
    run(__doc__, {PAGE: content}, lambda: draw(PICTURE))
