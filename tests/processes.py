"""Looking at processes that tests started."""

import os
import sys
import time
from pathlib import Path


def alive(process):
    """Whether a process with that id runs; one that waits to be collected does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    if not sys.platform.startswith("linux"):
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:  # it ended since
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def assert_ends(process, within=60.0):
    """A process that is about to end, by whomever, does."""
    deadline = time.monotonic() + within
    while alive(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)
