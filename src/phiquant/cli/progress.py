"""Progress for people, on stderr: a moving line on a terminal, plain lines when piped."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from phiquant.progress import OnProgress, Progress, ignore
from phiquant.reporting.units import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

REDRAWN, REDRAWN_WHOLE = 10, 2
"""Times a second that the moving line is drawn, alone or with what stands above it."""

PLAIN_SECONDS = 5.0
"""Plain lines come at most this often."""


@contextmanager
def shown(
    wanted: bool, above: "Callable[[], RenderableType] | None" = None
) -> Iterator[OnProgress]:
    """Yield a listener that shows progress, or ignores it.

    On a terminal, what `above` makes stands above the moving line, and goes with it at the end.
    """
    if not wanted or sys.stderr is None:
        yield ignore
    elif sys.stderr.isatty():
        with _live(above) as listener:
            yield listener
    else:
        yield PlainLines()


@contextmanager
def _live(above: "Callable[[], RenderableType] | None") -> Iterator[OnProgress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as RichProgress

    class Display(RichProgress):
        def get_renderables(self) -> "Iterable[RenderableType]":
            if above is not None:
                yield above()
            yield from super().get_renderables()

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    counted = (*columns[:3], TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
    # What stands above takes longer to draw, time that the work is not to miss.
    rate = REDRAWN if above is None else REDRAWN_WHOLE
    console = Console(stderr=True)
    with Display(*columns, console=console, transient=True, refresh_per_second=rate) as display:
        stage = ""
        task = TaskID(0)

        def listen(progress: Progress) -> None:
            nonlocal stage, task
            new = progress.stage != stage
            if new:  # a stage that comes again starts anew
                if stage:
                    display.remove_task(task)
                stage = progress.stage
                display.columns = columns if progress.unit == "B" else counted
                task = display.add_task(stage, total=progress.total)
            display.update(task, completed=progress.done, total=progress.total, refresh=new)

        yield listen


class PlainLines:
    """One line a stage, then at most one every few seconds, with rate and time left.

    When no one reads them any longer (`2>&1 | head -1`), they end and the work goes on.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._started = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """Print a line to stderr if one is due."""
        now = time.monotonic()
        if progress.stage != self._stage:
            # The first news of a stage come after its first piece of work.
            self._stage, self._started, self._last = progress.stage, self._last, now
        finished = progress.done >= progress.total
        if not finished and now - self._last < PLAIN_SECONDS and progress.seconds is None:
            return
        self._last = now
        line = describe(progress, max(now - self._started, 1e-3))
        try:
            print(line, file=sys.stderr, flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def describe(progress: Progress, elapsed: float) -> str:
    """A line about `progress` after `elapsed` seconds of its stage."""
    if progress.seconds is not None:
        return f"{progress.stage}: about {duration(progress.seconds)}"
    rate = progress.done / elapsed
    speed = f"{rate / 1e6:.3g} MB/s" if progress.unit == "B" else f"{rate:.2g} {progress.unit}/s"
    if progress.done >= progress.total:
        ending = f"{elapsed:.1f} s"
    else:
        ending = f"{(progress.total - progress.done) / rate:.0f} s left" if rate else "just begun"
    percent = 100 * progress.done // max(progress.total, 1)
    return f"{progress.stage}: {percent}%, {speed}, {ending}"
