"""One reading of a checkpoint feeds every writer.

Tensors come in network order, in which the artifacts' files hold them, a band of rows at a time:
so a file grows without holes, which `targets.streamed_file` relies on to be fast. Each core takes
the next band, widens it to float32 and rounds it onto every target's grid while it is at hand;
another thread writes what is finished, in order. Only bands are ever in memory, and their number
is bounded.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Self, TypeVar

from phiquant.host.cores import cores
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import PlanRow
from phiquant.progress import OnProgress, Progress
from phiquant.quantization.bands import WEIGHTS_PER_BAND
from phiquant.quantization.grid import Floats, Parts
from phiquant.targets.writing import Writer

BAND = WEIGHTS_PER_BAND
"""Weights in a band, which one core works on at a time."""

STRETCH = 2
"""Bands that change threads together: handing one over takes a tenth of a millisecond."""

AHEAD = 2
"""Stretches a core that are being worked on or waiting for their turn to be written."""

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 64 << 20
"""Encoded bytes that may wait for the disk before the rounding waits for it: as many as a file is
forced to the disk at a time. Where the disk keeps up, no more are made meanwhile; where it does
not, more would only take memory.
"""


Rounding = Callable[[int, Floats], Parts]
"""What is stored for rows of the checkpoint's tensor: (number of the first, weights) → parts."""


@dataclass(frozen=True, slots=True)
class Outlet:
    """Where one tensor of the checkpoint goes in one artifact, and how it is rounded."""

    row: PlanRow
    rounding: Rounding
    writer: Writer


Encoded = list[tuple[Outlet, int, Parts]]
"""Where some rows go, the number of the first in the artifact's tensor, and what is stored."""


@dataclass(frozen=True, slots=True)
class Band:
    """Some rows of one tensor, and everything that becomes of them."""

    source: str
    first: int
    last: int
    nbytes: int
    """Bytes of the checkpoint."""
    outlets: Sequence[Outlet]

    def encode(self, checkpoint: Checkpoint) -> Encoded:
        """The rows as each outlet that wants them rounds them."""
        rows = checkpoint.weight(self.source, self.first, self.last)
        rows = rows.reshape(-1, rows.shape[-1])
        pieces = []
        for outlet in self.outlets:
            here = outlet.row.overlap(self.first, len(rows))
            if here.start < here.stop:
                first = self.first + here.start
                pieces.append(
                    (outlet, first - outlet.row.first, outlet.rounding(first, rows[here]))
                )
        return pieces


def stream(checkpoint: Checkpoint, outlets: Sequence[Outlet], on_progress: OnProgress) -> None:
    """Read every tensor once, and encode and write it through each of its outlets."""
    done = 0
    with BehindWriter() as behind, ThreadPoolExecutor(cores()) as pool:
        encode = partial(_encoded, checkpoint=checkpoint)
        for stretch, encoded in in_order(pool, encode, stretches(all_bands(checkpoint, outlets))):
            nbytes = sum(part.nbytes for _, _, stored in encoded for part in stored.values())
            behind.submit(nbytes, partial(_write, encoded))
            done += sum(band.nbytes for band in stretch)
            on_progress(Progress("quantizing", done, checkpoint.nbytes))


def _encoded(stretch: Sequence[Band], checkpoint: Checkpoint) -> Encoded:
    return [encoded for band in stretch for encoded in band.encode(checkpoint)]


def _write(encoded: Encoded) -> None:
    for outlet, first, stored in encoded:
        outlet.writer.write(outlet.row, first, stored)


def stretches(bands: Iterator[Band]) -> Iterator[tuple[Band, ...]]:
    """The same bands, STRETCH of them at a time."""
    while stretch := tuple(islice(bands, STRETCH)):
        yield stretch


def all_bands(checkpoint: Checkpoint, outlets: Sequence[Outlet]) -> Iterator[Band]:
    """Every band of every tensor in network order; the next tensor is asked for ahead."""
    by_source: dict[str, list[Outlet]] = {w.name: [] for w in checkpoint.architecture.weights()}
    for outlet in outlets:
        if outlet.row.source is not None:
            by_source[outlet.row.source].append(outlet)
    names = list(by_source)
    for name, following in zip(names, [*names[1:], None], strict=True):
        if following is not None:
            checkpoint.read_ahead(following)
        tensor = checkpoint.tensors[name]
        for first, last in core_bands(tensor.shape):
            nbytes = (last - first) * tensor.nbytes // tensor.shape[0]
            yield Band(name, first, last, nbytes, by_source[name])


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterator[Item]
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, in the order of `items`, a few a core being worked on."""
    running: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            running.append((item, pool.submit(work, item)))
            if len(running) > AHEAD * cores():
                first, future = running.popleft()
                yield first, future.result()
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        for _, future in running:
            future.cancel()


def core_bands(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Row ranges of at most BAND weights where a row allows it; a vector is one band."""
    step = shape[0] if len(shape) == 1 else max(1, BAND // shape[1])
    for first in range(0, shape[0], step):
        yield first, min(first + step, shape[0])


class BehindWriter:
    """Runs writes in one thread, in order, while the caller goes on.

    `submit` waits while more than WAITING bytes are pending. The first error of a write is
    raised in the caller, by a later `submit` or on leaving the context.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="phiquant-writer")
        self._pending: deque[tuple[int, Future[None]]] = deque()
        self._waiting = 0

    def submit(self, nbytes: int, write: Callable[[], None]) -> None:
        """Queue one write, which holds `nbytes` until it is done."""
        while self._pending and (self._waiting > WAITING or self._pending[0][1].done()):
            self._await_oldest()
        self._pending.append((nbytes, self._pool.submit(write)))
        self._waiting += nbytes

    def _await_oldest(self) -> None:
        nbytes, write = self._pending.popleft()
        self._waiting -= nbytes
        write.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            while self._pending:
                self._await_oldest()
