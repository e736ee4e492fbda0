"""An interruption that comes while a library in C calls back into Python is not lost."""

import os
import signal
import subprocess
import sys

import pytest

from command_line import environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

CALLED_BACK = """
import ctypes, signal, sys
from phiquant.cli.ending import ending

@ctypes.CFUNCTYPE(None)
def listen():
    signal.raise_signal(int(sys.argv[1]))

with ending(False):
    listen()
    while True:
        signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_raised_once_the_callback_is_over(number):
    ended = subprocess.run(
        [sys.executable, "-c", CALLED_BACK, str(int(number))],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert ended.returncode == 130, ended
    assert ended.stderr == "phiquant: interrupted; nothing unfinished was left behind\n"
