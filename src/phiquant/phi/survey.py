"""One look at every weight before anything is planned or written.

The survey finds what the headers cannot tell: values that are not finite, and values beyond the
range of FP16. It touches every byte once, at the speed of the disk; on a machine with room the
second reading then comes from the page cache.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from phiquant.errors import CheckpointError
from phiquant.host.cores import cores
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.listed import listed
from phiquant.phi.widen import largest_stored_magnitude

PIECE = 1 << 21
"""Values that one core reads and looks at in one go: some milliseconds in which it asks nothing of
the interpreter, which may be busy with the tokenizer, and a few megabytes."""

FP16_OVERFLOW = 65520.0
"""FP16 rounds to infinity from here on, halfway past its largest value 65504."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the weights are like: the largest magnitude in each tensor, by checkpoint name.

    `dtype` is the element type of most bytes: "BF16", "F16" or "F32".
    """

    largest: Mapping[str, float]
    dtype: str = "BF16"
    sensitivities: Mapping[str, float] = field(default_factory=dict)
    """What rounding a matrix to 4 bits costs, in nats a token, by name; empty if not measured."""

    def fits_fp16(self, name: str) -> bool:
        """Whether every value of the tensor rounds to a finite FP16 number."""
        return self.largest[name] < FP16_OVERFLOW


def _look(pool: ThreadPoolExecutor, checkpoint: Checkpoint, name: str) -> Iterator[float]:
    """The largest magnitudes of the tensor's pieces, when they are done."""
    tensor = checkpoint.tensors[name]
    size = math.prod(tensor.shape)

    def look(first: int) -> float:
        last = min(first + PIECE, size)
        return largest_stored_magnitude(checkpoint.raw(name, first, last), tensor.dtype)

    def look_at_sums(first: int) -> float:
        values = checkpoint.weight(name, first, first + rows)
        return largest_stored_magnitude(values, "F32")

    if name not in checkpoint.products:
        return pool.map(look, range(0, size, PIECE))
    rows = max(1, PIECE // tensor.shape[1])
    return pool.map(look_at_sums, range(0, tensor.shape[0], rows))


def survey(
    checkpoint: Checkpoint,
    advance: Callable[[int], None] = lambda nbytes: None,
    threads: int | None = None,
) -> Survey:
    """Look at every tensor, by default with all cores; `advance` is called with the bytes seen.

    Raises CheckpointError that names every tensor with a NaN or an infinity.
    """
    with ThreadPoolExecutor(threads or cores()) as pool:
        looks = {name: _look(pool, checkpoint, name) for name in checkpoint.tensors}
        largest = {}
        for name, pieces in looks.items():
            largest[name] = max(pieces)
            advance(checkpoint.tensors[name].nbytes)
    broken = [name for name, value in largest.items() if math.isinf(value)]
    if broken and any(name in checkpoint.products for name in broken):
        raise CheckpointError(
            f"NaN or infinite values in {listed(broken, 6)} with the adapter's products added; one "
            "of the two is damaged: download them again"
        )
    if broken:
        raise CheckpointError(
            f"NaN or infinite values in {listed(broken, 6)}; "
            "the checkpoint is damaged: download it again"
        )
    return Survey(largest, checkpoint.dtype)
