"""Many small matrix products over every core.

A BLAS library splits each product over the cores and waits for all of them at its end. For
products of a millisecond, on a machine that does other work too, the waiting costs several times
the arithmetic (measured: eight times). So products are cut into pieces here, the pieces spread
over threads, and each is left to one core.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from phiquant.host.cores import cores

Item = TypeVar("Item")
Floats = npt.NDArray[np.float32]

CORES = cores()
_WIDEST = 1024


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CORES, thread_name_prefix="phiquant")


if hasattr(os, "register_at_fork"):
    # A forked process has none of its parent's threads: work for such a pool would never be done.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def for_each(items: Sequence[Item], task: Callable[[Item], None]) -> None:
    """Run `task` on every item, over as many threads as there are cores, BLAS on one each.

    The limit on BLAS holds for the whole process until this returns; a task must not call this
    function in turn.
    """
    with _blas().limit(limits=1):
        if len(items) == 1:
            task(items[0])
        else:
            for _ in _pool().map(task, items):
                pass


def multiply(inputs: Floats, weight: Floats, out: Floats) -> None:
    """Write `inputs` (n, in) times the transposed `weight` (rows, in) to `out` (n, rows)."""
    # As many pieces for each core: three over two cores would leave one idle for a quarter.
    pieces = -(-len(weight) // (_WIDEST * CORES)) * CORES
    width = -(-len(weight) // pieces)

    def fill(first: int) -> None:
        # Threads have error states of their own; broken weights are to show in the outputs.
        with np.errstate(over="ignore", invalid="ignore"):
            last = first + width
            np.matmul(inputs, weight[first:last].T, out=out[:, first:last])

    for_each(range(0, len(weight), width), fill)
