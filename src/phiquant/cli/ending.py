"""How a command ends: its result on stdout, or a sentence on stderr and an exit code.

Exit codes: 0 done; 1 a bug of ours; 2 bad request or bad input; 3 verification failed; 4 not
enough memory or disk, here or on the device that was named; 130 interrupted.
"""

import _thread
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from phiquant.cli.console import harmless
from phiquant.cli.wording import in_options
from phiquant.errors import PhiquantError, ResourceError, VerificationError

BUG, BAD_INPUT, FAILED_VERIFICATION, NO_RESOURCES, INTERRUPTED = 1, 2, 3, 4, 130

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

NO_MEMORY = ("can't start new thread", "failed to map segment", "Cannot allocate memory")
"""How threads and shared libraries that do not fit are told, by errors of no type of their own."""
INTERRUPTIONS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Ctrl-C, a polite kill, a closed terminal; Windows has no SIGHUP."""
LONGEST = 2000
"""Characters of a sentence on stderr."""
AGAIN = 0.05
"""Seconds after which an interruption that was lost is raised again."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found: for machines, for people, and whether it ends in failure."""

    document: dict[str, Any]
    render: Callable[[], None]
    """Prints for people; called only without `--json`."""
    failure: PhiquantError | None = None
    """What the command ends in where the result is a failure: of a verification, say."""


@contextmanager
def ending(as_json: bool) -> Iterator[Callable[[Result], None]]:
    """Run a command's body; the yielded function emits its result."""
    emitted = False

    def emit(result: Result) -> None:
        nonlocal emitted
        emitted = True
        _show(result, as_json)
        if result.failure is not None:
            raise result.failure

    _listen_for_interruptions()
    try:
        with _none_lost():
            yield emit
    except SystemExit:
        raise
    except BaseException as error:  # a panic inside a Rust library is no Exception
        code = _code(error)
        if code == BUG and os.environ.get("PHIQUANT_TRACEBACK"):
            raise
        _fail(_sentence(error), code, as_json and not emitted)


class Ended(SystemExit):
    """A command that has told how it ended."""


def report(message: str, code: int) -> None:
    """Print a failure as the one JSON document on stdout."""
    _print(json.dumps({"error": message, "exit_code": code}, indent=2))


def _fail(message: str, code: int, as_json: bool) -> None:
    if as_json:
        report(message, code)
    warn(message)
    raise Ended(code)


def warn(message: str) -> None:
    """Print a sentence on stderr."""
    if sys.stderr is None:
        return
    try:
        print(f"phiquant: {_in_a_line(message)}", file=sys.stderr, flush=True)
    except OSError:  # no one reads it
        _discard(sys.stderr.fileno())


def _in_a_line(message: str) -> str:
    """The message as it may be shown: it can quote names by other hands, of any length."""
    line = harmless(message).replace("\n", " ")
    if len(line) <= LONGEST:
        return line
    return f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}"


def _show(result: Result, as_json: bool) -> None:
    """Print the result. That the reader went away (`| head`) is no failure."""
    if as_json:
        _print(json.dumps(result.document, indent=2))
    else:
        announce(result.render)


def announce(render: Callable[[], None]) -> None:
    """Print for people, now: the result, or what comes before a long piece of work."""
    try:
        render()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _print(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        print(text, flush=True)
    except OSError as error:
        _discard(sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise


def _discard(handle: int) -> None:
    """Send what is still buffered for `handle` nowhere: at exit it would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), handle)


def _code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, VerificationError):
        return FAILED_VERIFICATION
    if isinstance(error, ResourceError) or _lacks_memory(error) or _lacks_disk(error):
        return NO_RESOURCES
    return BAD_INPUT if isinstance(error, PhiquantError | OSError) else BUG


def _sentence(error: BaseException) -> str:
    """What happened, and what was left behind, which the error's notes say."""
    notes = getattr(error, "__notes__", ())
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {'; '.join(notes) or 'nothing unfinished was left behind'}"
    return in_options("; ".join((_reason(error), *notes)))


def _reason(error: BaseException) -> str:
    where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    if isinstance(error, PhiquantError):
        return str(error)
    if _lacks_memory(error):
        return "the machine ran out of memory; close other programs, or lift this one's limit"
    if _lacks_disk(error):
        return f"the disk is full{where}; make room and try again"
    if isinstance(error, OSError):
        return f"the system refused: {error.strerror or error}{where}"
    return (
        f"this is a bug in phiquant: {type(error).__name__}: {error}; "
        "set PHIQUANT_TRACEBACK=1, run again, and report what it prints"
    )


def _lacks_memory(error: BaseException) -> bool:
    """Whether `error`, or one that led to it, says that there was no room."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if any(sign in str(error) for sign in NO_MEMORY):
        return True
    earlier = error.__cause__ or error.__context__
    return earlier is not None and _lacks_memory(earlier)


def _lacks_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _listen_for_interruptions() -> None:
    """Let every interruption end as Ctrl-C does, unless the caller has it ignored (`nohup`)."""
    for name in INTERRUPTIONS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


@contextmanager
def _none_lost() -> Iterator[None]:
    """Repeat an interruption that was raised where nothing could take it: in Python code that a
    library in C called, such as a listener to its log. Left there it would be lost, and with it
    every later one.
    """
    before = sys.unraisablehook

    def look(lost: "UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            before(lost)
            return
        signal.signal(signal.SIGINT, _interrupt)
        again = threading.Timer(AGAIN, _send_interruption)
        again.daemon = True
        again.start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before


def _send_interruption() -> None:
    if hasattr(signal, "pthread_kill"):  # wakes the thread where it waits for something
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A second Ctrl-C must not cut the cleaning up short.
    for name in INTERRUPTIONS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise KeyboardInterrupt
