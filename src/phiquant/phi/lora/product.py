"""What an adapter adds to some rows of a weight: scale · B A, in float32.

The matrices stay in the adapter's file until rows are asked for, so that memory does not grow with
the adapter. Sums go over the rank in order, a row at a time, on one core: the same bits however
rows are cut into bands, and whatever the machine.
"""

from dataclasses import dataclass

import numpy as np

from phiquant.host.kernel import kernel
from phiquant.phi.safetensors_file import SafetensorsTensor, read_elements, read_rows
from phiquant.phi.stored_weight import Opened
from phiquant.phi.weights import Floats
from phiquant.phi.widen import widen


@dataclass(frozen=True, slots=True)
class Product:
    """The change of rows `first` to `first` + `rows` of a weight.

    Of a linear layer, `up` is B (rows, rank) and `down` A (rank, columns). Of an embedding, which
    PEFT stores the other way around (`across`), A is (rank, rows) and B (columns, rank).
    """

    first: int
    rows: int
    up: SafetensorsTensor
    down: SafetensorsTensor
    scale: float
    across: bool = False

    def add_to(self, values: Floats, first: int, opened: Opened) -> None:
        """Add what belongs to `values`, the rows of the weight from `first` on, in place."""
        low = max(first, self.first)
        high = min(first + len(values), self.first + self.rows)
        if low >= high:
            return
        here = slice(low - self.first, high - self.first)
        if self.across:
            up, down = self._across(opened, here), self._read(self.down, opened).T
        else:
            up = self._read(self.up, opened, here.start, here.stop)
            down = self._read(self.down, opened)
        _add_product(
            values[low - first : high - first],
            np.ascontiguousarray(up),
            np.ascontiguousarray(down),
            np.float32(self.scale),
        )

    def _across(self, opened: Opened, here: slice) -> Floats:
        """Some columns of A (rank, rows), as rows: no more of the table is read."""
        file, (rank, rows) = opened[self.up.path], self.up.shape
        starts = range(0, rank * rows, rows)
        read = [read_elements(file, self.up, at + here.start, at + here.stop) for at in starts]
        return widen(np.stack(read, axis=1), self.up.dtype)

    def _read(
        self, tensor: SafetensorsTensor, opened: Opened, first: int = 0, last: int | None = None
    ) -> Floats:
        return widen(read_rows(opened[tensor.path], tensor, first, last), tensor.dtype)


@kernel()
def _add_product(values: Floats, up: Floats, down: Floats, scale: np.float32) -> None:
    columns = values.shape[1]
    sums = np.empty(columns, np.float32)
    for row in range(values.shape[0]):
        sums[:] = 0
        for at in range(up.shape[1]):
            factor = up[row, at]
            for column in range(columns):
                sums[column] += factor * down[at, column]
        for column in range(columns):
            values[row, column] += scale * sums[column]
