"""Limits that a child sets itself before it opens what a stranger made, where the system has them.

Memory is limited as Linux counts a process's own data (RLIMIT_DATA): what it allocates, and not the
files that it maps, which the system can drop. Elsewhere it is the address space, as far as the
system minds. Windows has no such limits.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PARENT_DEATH_SIGNAL = 1
"""Of prctl(2): PR_SET_PDEATHSIG."""


def limit_resources(memory: int | None, seconds: int | None) -> None:
    """Let this process allocate at most `memory` bytes and compute for `seconds` of processor time,
    and write neither files nor an image of itself. It is the first to go when memory runs out.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    data = resource.RLIMIT_DATA if sys.platform.startswith("linux") else resource.RLIMIT_AS
    wanted = (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (data, memory),
        (resource.RLIMIT_CPU, seconds),
    )
    for kind, value in wanted:
        if value is None:
            continue
        _, hard = resource.getrlimit(kind)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # At the hard limit of time Linux kills without a word, at the other by SIGXCPU.
        last = most + 1 if kind == resource.RLIMIT_CPU and most != hard else most
        try:
            resource.setrlimit(kind, (most, last))
        except (OSError, ValueError):  # a limit that this system does not know
            continue
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def die_with(parent: int) -> None:
    """Have Linux kill this process when the one with the id `parent`, which started it, ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        os._exit(1)
