"""From measured runs to rows: ours, the peer's, the ratio, the bar, passed or not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tables import Bar, Row, Table, judged

GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of one contender. Seconds and bytes."""

    contender: str
    wall: float
    flush: float
    """Seconds that `sync` then took to bring the rest to the disk."""
    processor: float
    anonymous: int
    resident: int
    output_bytes: int
    intermediate_bytes: int
    written_bytes: int


def rows(runs: Sequence[Run], startup: Sequence[float]) -> list[Row]:
    """The table of `speed.py`; a contender's figure is the median of its runs."""
    wall = {
        name: median(run.wall for run in runs if run.contender == name)
        for name in {run.contender for run in runs}
    }
    return [
        ratio("GGUF Q4_K_M, wall", wall.get("ours-gguf"), wall.get("peer-gguf"), 0.25),
        ratio("MLX 4-bit g64, wall", wall.get("ours-mlx"), wall.get("peer-mlx"), 0.6),
        ratio("ONNX int4, wall", wall.get("ours-onnx"), wall.get("peer-onnx"), 0.2),
        ratio(
            "OpenVINO int4 sym g64, wall",
            wall.get("ours-openvino"),
            wall.get("peer-openvino"),
            0.12,
        ),
        ratio("both from one reading, wall", wall.get("ours-both"), apart(wall), 1.0, below=True),
        peak_memory(runs),
        intermediate_file(runs),
        start_up(startup),
    ]


def apart(wall: Mapping[str, float]) -> float | None:
    """What ours take one after the other: the `theirs` of the both-at-once row."""
    if "ours-gguf" not in wall or "ours-mlx" not in wall:
        return None
    return wall["ours-gguf"] + wall["ours-mlx"]


def ratio(
    what: str, ours: float | None, theirs: float | None, bar: float, below: bool = False
) -> Row:
    value = None if ours is None or theirs is None else ours / theirs
    text = "–" if value is None else f"{value:.3f}"
    return judged(what, seconds(ours), seconds(theirs), (value, text), Bar(bar, below))


def peak_memory(runs: Sequence[Run]) -> Row:
    mine = [run.anonymous for run in runs if run.contender.startswith("ours")]
    peers = [run.anonymous for run in runs if not run.contender.startswith("ours")]
    value = max(mine) / GIGABYTE if mine else None
    text = "–" if value is None else f"{value:.2f} GB"
    theirs = f"{max(peers) / GIGABYTE:.2f} GB" if peers else "–"
    bar = Bar(1.0, words="≤ 1.0 GB")
    return judged("peak anonymous memory", text, theirs, (value, text), bar)


def intermediate_file(runs: Sequence[Run]) -> Row:
    """Bookkeeping of a few megabytes is allowed; a copy of the model is not."""
    mine = [run.intermediate_bytes for run in runs if run.contender.startswith("ours")]
    peers = [run.intermediate_bytes for run in runs if not run.contender.startswith("ours")]
    value = max(mine) / GIGABYTE if mine else None
    text = "–" if value is None else f"{value:.3f} GB"
    theirs = f"{max(peers) / GIGABYTE:.2f} GB" if peers else "–"
    bar = Bar(0.01, words="≤ 0.01 GB")
    return judged("largest intermediate file", text, theirs, (value, text), bar)


def start_up(startup: Sequence[float]) -> Row:
    value = median(startup) if startup else None
    text = "–" if value is None else f"{value:.3f} s"
    return judged("`phiquant --help`", text, "", (value, text), Bar(0.3, words="≤ 0.3 s"))


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


RUNS = Table(
    (
        "run", "wall:", "then sync:", "processor:", "anonymous:", "resident:", "output:",
        "intermediate:", "written:",
    )
)  # fmt: skip


def run_table(records: Iterable[Mapping[str, Any]], titles: Mapping[str, str]) -> str:
    """Every run; `records` are runs as JSON keeps them."""
    runs = [Run(**record) for record in records]
    return RUNS.text(run_cells(run, titles[run.contender]) for run in runs)


def run_cells(run: Run, title: str) -> tuple[str, ...]:
    times = (f"{value:.1f} s" for value in (run.wall, run.flush, run.processor))
    sizes = (
        f"{value / GIGABYTE:.3f} GB"
        for value in (
            run.anonymous,
            run.resident,
            run.output_bytes,
            run.intermediate_bytes,
            run.written_bytes,
        )
    )
    return (title, *times, *sizes)
