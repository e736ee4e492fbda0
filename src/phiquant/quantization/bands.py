"""Rows in bands over the processor's cores.

Kernels run without the interpreter's lock and on one core; a band of rows that stays near it, in a
processor's cache, goes through all of them (fit, round, pack) before the next. Unlike numba's
own threads these may be entered from several Python threads at once, and they cost no
compilation.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from phiquant.host.cores import cores

WEIGHTS_PER_BAND = 1 << 19
"""2 MB of float32: smaller bands cost more in threads changing places."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="phiquant-kernels")


if hasattr(os, "register_at_fork"):
    # A forked process has none of its parent's threads: work for such a pool would never be done.
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_bands(rows: int, columns: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` for bands of rows that together cover `rows`, in any order.

    `work` must not call `in_bands` with more than one band's worth of weights.
    """
    height = max(1, WEIGHTS_PER_BAND // max(columns, 1))
    if rows <= height or cores() == 1:
        for first in range(0, rows, height):
            work(first, min(first + height, rows))
        return
    tasks = [
        _pool().submit(work, first, min(first + height, rows)) for first in range(0, rows, height)
    ]
    for task in tasks:
        task.result()
