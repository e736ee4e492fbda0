"""`Writer`: what takes an artifact's tensors; `Complete`: what sees that none is missing."""

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from phiquant.planning.plan import Plan, PlanRow
from phiquant.quantization.grid import Parts


class Writer(Protocol):
    """Takes an artifact's tensors band by band, in any order, into an existing directory.

    Leaving the context normally completes and syncs the files; leaving it by an exception
    closes them. The directory is the caller's to rename or remove.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def hashes(self) -> Mapping[str, str]:
        """BLAKE3 of the files that were hashed while they were written, by name, when done."""

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """Store the parts of `row` for the tensor's rows from `first` on."""


class Incomplete(RuntimeError):  # noqa: N818 (it says what the artifact is)
    """A writer was not given all that its plan has: a bug of the caller's, and no artifact."""


class Complete:
    """A writer that raises Incomplete on leaving where rows of the plan are missing.

    Tensors that are computed from the configuration (`PlanRow.source` is None) are the writer's
    own to write.
    """

    def __init__(self, writer: Writer, plan: Plan) -> None:
        self._writer = writer
        self._taken: dict[str, list[range]] = {
            row.output: [] for row in plan.rows if row.source is not None
        }
        self._rows = {row.output: row.shape[0] for row in plan.rows}

    @property
    def hashes(self) -> Mapping[str, str]:
        """See `Writer.hashes`."""
        return self._writer.hashes

    def write(self, row: PlanRow, first: int, parts: Parts) -> None:
        """See `Writer.write`."""
        # A vector comes whole.
        count = row.shape[0] if len(row.shape) == 1 else len(next(iter(parts.values())))
        self._writer.write(row, first, parts)
        self._taken[row.output].append(range(first, first + count))

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        missing = [] if kind is not None else self._missing()
        if not missing:
            self._writer.__exit__(kind, error, trace)
            return
        fault = Incomplete(
            f"expected every row of {len(self._taken)} tensors, found {len(missing)} tensors "
            f"incomplete, {missing[0]} among them"
        )
        self._writer.__exit__(Incomplete, fault, None)
        raise fault

    def _missing(self) -> list[str]:
        return [name for name, taken in self._taken.items() if _gap(taken, self._rows[name])]


def _gap(taken: list[range], rows: int) -> bool:
    """Whether the ranges leave out any of the first `rows` rows."""
    reached = 0
    for part in sorted(taken, key=lambda part: part.start):
        if part.start > reached:
            return True
        reached = max(reached, part.stop)
    return reached < rows
