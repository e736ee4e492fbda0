"""Compiling the kernels in a process of its own, beside other work.

Kernels are compiled when they are first used and kept on the disk after that. After a new
installation that is half a minute's work of one core, and most of it holds Python's lock; so a
process of its own does it, which gives way to every other process of the machine. Where the disk
keeps nothing, its work is lost and nothing else.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from phiquant.targets.table import targets

ROWS = np.linspace(-1, 1, 8 * 1024, dtype=np.float32).reshape(8, 1024)
"""Rows of 1024 weights, which every block and group divides."""


def compile_kernels() -> None:
    """Encode a few rows onto every grid of every target, and decode them."""
    for target in targets():
        for grid in target.grids.values():
            grid.decode(grid.encode(ROWS), ROWS.shape[1])


@contextmanager
def compiled_behind() -> Iterator[Callable[[], object]]:
    """Compile while the block runs. The function that it is given waits for the end of that.

    The process is ended with the block.
    """
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        creationflags=getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
    )
    try:
        yield process.wait
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    if hasattr(os, "nice"):
        os.nice(19)
    compile_kernels()
