"""A command that stops at a known place until the test lets it go on.

A module that Python loads at start-up (`sitecustomize`) puts `hold()` where the test wants it. The
command then says through a pipe that it is there, and waits for another pipe. So nothing here
depends on how fast the machine is; a command that ends before it gets there closes its pipe.
"""

import os
from contextlib import contextmanager

from command_line import contained, start

HOLD = """
import os, signal

for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # ignored where the tests run behind `nohup` or `&`
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)

def hold():
    os.write({reached}, b".")
    os.read({let_go}, 1)

"""


class Held:
    """A command that has been started, and its two pipes."""

    def __init__(self, process, reached, let_go):
        self.process = process
        self._reached = reached
        self._let_go = let_go

    def wait_until_held(self):
        """Return when the command is at the next `hold()`."""
        if not os.read(self._reached, 1):
            raise AssertionError(f"it ended first: {self.process.communicate()}")

    def let_go(self):
        """Let the command go on, from the `hold()` that it is at or the next one."""
        os.write(self._let_go, b".")

    def end(self):
        """Wait for the command's end; returns what it wrote to stdout and to stderr."""
        return self.process.communicate()


@contextmanager
def held(directory, hook, *words):
    """Start `phiquant words...` with `hook`, Python text that calls `hold()`; yields a `Held`.

    The hook lies in `directory`, which must not exist. The command does not outlive the block.
    """
    reached, telling = os.pipe()
    waiting, let_go = os.pipe()
    directory.mkdir()
    text = HOLD.format(reached=telling, let_go=waiting) + hook
    (directory / "sitecustomize.py").write_text(text)
    process = start(*words, first_on_path=directory, pass_fds=(telling, waiting))
    os.close(telling)
    os.close(waiting)
    try:
        with contained(process):
            yield Held(process, reached, let_go)
    finally:
        os.close(reached)
        os.close(let_go)
