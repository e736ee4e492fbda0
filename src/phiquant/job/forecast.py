"""What a job will take, before it begins: memory, disk and time of this machine.

*Disk* is exact for the tensors, with a spare for everything else. *Memory* is what the reading
holds at once: bands of rows in flight, encoded bytes that wait for the disk, the tokenizer, and
the interpreter with its libraries. How much waits depends on the disk; the most that can is taken.
Jobs that are at work already announce what they will take (`host.announcements`). Kernels
that are compiled on first use leave 50 to 150 MB more in that one process; they are compiled here,
so that what is free is asked for after that. benchmarks/job_memory.py measures whole jobs.
*Time* is measured, once in a process: one band of random weights is rounded onto every grid of the
plans, and the rate extrapolated to all weights and cores.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np

from phiquant.calibration.cost import Cost, product_rate
from phiquant.calibration.sums_cost import SumsCost
from phiquant.errors import ResourceError
from phiquant.host.cores import cores
from phiquant.job.streaming import AHEAD, BAND, STRETCH, WAITING
from phiquant.planning.forecast import Forecast
from phiquant.planning.plan import Plan
from phiquant.targets.streamed_file import SYNC_EVERY
from phiquant.targets.table import target

SPARE = 64 << 20
"""Bytes of disk beyond an artifact's tensors: metadata, vocabulary, tokenizer files, card."""

LIBRARIES = 78 << 20
"""Anonymous memory of the interpreter with NumPy, numba, tokenizers and kernels loaded (fitted)."""
CALIBRATING = 150 << 20
"""The same in a calibrated run, with its kernels and the buffers of matrix products (at most)."""
A_TOKEN = 680
"""Bytes that one entry of the vocabulary takes once tokenizer.json is read (fitted)."""
SHARED = 3
"""Of several writers the largest takes its whole, each other a third: what one has let go of
serves the next (fitted).
"""
SCRATCH = 12
"""Bytes a weight of a band that is being rounded: as it is read, and what fits it to a grid."""
READ_AND_HASH = 1.5e9
"""Bytes a second at which an artifact's files are written and hashed."""
SECONDS_A_GRID = 0.03
"""A band is rounded again and again for so long, at most, to find a grid's rate."""


def forecast(
    plans: Sequence[Plan],
    vocabulary: int,
    cost: Cost | None = None,
    gathering: Sequence[SumsCost] = (),
) -> Forecast:
    """What writing the artifacts of `plans` takes on this machine.

    `cost` is that of a calibrated run before it, which keeps all that it rounds in a journal;
    `gathering` are forward passes over text before that.
    """
    disk = sum(plan.nbytes + SPARE for plan in plans)
    memory, seconds = _memory(plans, vocabulary), _seconds(plans)
    for sums in gathering:
        memory = max(memory, CALIBRATING + vocabulary * A_TOKEN + sums.memory)
        seconds += sums.seconds(product_rate(1024, 0.1))
    if cost is None:
        gathered = bool(gathering)
        return Forecast(disk=disk, memory=memory, seconds=seconds, calibration=gathered)
    return Forecast(
        disk=2 * disk + cost.disk,
        memory=max(memory, CALIBRATING + vocabulary * A_TOKEN + cost.memory),
        seconds=seconds + cost.seconds(product_rate()),
        calibration=True,
    )


def require_memory(needed: Forecast, available: int | None, promised: int = 0) -> None:
    """ResourceError if the machine is known to have less memory than the job takes.

    Of the `available` bytes other jobs at work will take those that were `promised` to them.
    """
    if available is None or needed.memory + promised <= available:
        return
    others = (
        f", of which other phiquant jobs at work will take {promised / 1e9:.2f}" if promised else ""
    )
    remedy = "wait for them" if promised else "close other programs"
    raise ResourceError(
        f"the job needs about {needed.memory / 1e9:.2f} GB of memory and "
        f"{available / 1e9:.2f} GB are free{others}; {remedy}, or give it fewer cores "
        "(taskset -c 0), which takes less"
    )


def require_disk(needed: Forecast, free: int, place: str, fitting: Iterable[str]) -> None:
    """ResourceError if the artifacts do not fit; `fitting` are other requests that would."""
    if needed.disk <= free:
        return
    would = ", ".join(fitting)
    raise ResourceError(
        f"the artifacts need {needed.disk / 1e9:.2f} GB of disk at {place}, "
        f"{free / 1e9:.2f} GB are free; make room, choose another `output`"
        + (f", or ask for less: {would} would fit" if would else "")
    )


def _memory(plans: Sequence[Plan], vocabulary: int) -> int:
    """At the moment when all writers are open and as much as can be waits for the disk."""
    opened = sorted(_writer(plan, vocabulary) for plan in plans)
    writers = sum(opened[:-1]) // SHARED + sum(opened[-1:])
    return LIBRARIES + vocabulary * A_TOKEN + writers + _in_flight(plans) + _waiting(plans)


def _writer(plan: Plan, vocabulary: int) -> int:
    taken = target(plan.target).writing
    return taken.fixed + vocabulary * taken.a_token


def _in_flight(plans: Sequence[Plan]) -> int:
    """The bands of `streaming`: one a core being rounded, stretches of them that are encoded."""
    encoded = sum(_bytes_a_weight(plan) for plan in plans)
    stretches = AHEAD * cores() + 1
    return int(BAND * (cores() * SCRATCH + stretches * STRETCH * encoded))


def _bytes_a_weight(plan: Plan) -> float:
    """Of the widest matrix; vectors are few."""
    matrices = [row for row in plan.rows if len(row.shape) > 1]
    return max((row.nbytes / row.weights for row in matrices), default=0.0)


def _waiting(plans: Sequence[Plan]) -> int:
    """Nothing waits for long before the first file is forced to the disk."""
    return min(WAITING, sum(max(0, plan.nbytes - SYNC_EVERY) for plan in plans))


def _seconds(plans: Sequence[Plan]) -> float:
    rounding = sum(
        weights * _seconds_a_weight(plan.target, grid)
        for plan in plans
        for grid, weights in _weights_by_grid(plan).items()
    )
    return rounding / cores() + sum(plan.nbytes for plan in plans) / READ_AND_HASH


def _weights_by_grid(plan: Plan) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in plan.rows:
        if row.source is not None and len(row.shape) > 1:
            counts[row.grid] += row.weights
    return counts


@cache
def _seconds_a_weight(target_name: str, grid_name: str) -> float:
    """Of one core, by rounding a band of random weights; the first round compiles the kernels."""
    grid = target(target_name).grids[grid_name]
    rows = np.random.default_rng(0).normal(0, 0.02, (BAND // 1024 // 4, 1024)).astype(np.float32)
    grid.encode(rows[:8])
    best, until = float("inf"), time.perf_counter() + SECONDS_A_GRID
    while True:
        began = time.perf_counter()
        grid.encode(rows)
        best = min(best, time.perf_counter() - began)
        if time.perf_counter() >= until:
            return best / rows.size
