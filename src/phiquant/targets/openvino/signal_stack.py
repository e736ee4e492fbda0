"""The stack on which a thread runs its signal handlers, kept as it was.

On Linux every instance of OpenVINO's CPU plugin gives the thread that makes it another stack for
signals, and when it ends puts back the stack of the instance before it, whether that one lives or
not (`SigAltStackSetup` in the plugin's sources). A few pipelines later the thread's stack lies in
memory that was given back to the system, and the next signal that Python handles (Ctrl-C, a polite
kill) ends the process with "Segmentation fault". So whatever makes a plugin does it inside of
`kept_signal_stack`; a plugin whose stack is not in use puts nothing back.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """Linux's `stack_t`."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def of_this_thread(cls) -> "SignalStack":
        """The stack for signals that this thread has now, or the flag that it has none."""
        stack = cls()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
        return stack


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give the thread back, after the block, the stack for signals that it had before."""
    if sys.platform != "linux":
        yield
        return
    before = SignalStack.of_this_thread()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
