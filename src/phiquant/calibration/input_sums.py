"""Means and mean squares of every matrix's inputs, channel by channel: they say what errors cost.

The squared error that rounding W to W + D leaves in a layer's outputs, E|D x|², is the sum of
D[i, j]² E[x[j]²] if the errors of different columns are independent. These mean squares are the
diagonal of E[x xᵀ], and cost next to nothing beside the forward pass that yields the inputs. Means
tell what errors have in common: see `quantization.feedback.means`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from phiquant.phi.reference import Reference
from phiquant.phi.weights import Floats, WeightSource
from phiquant.quantization.inputs import Inputs

BATCH_TOKENS = 4096
"""Tokens that go through the network together."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over tokens of a matrix's inputs, (columns,) each."""

    squares: Floats
    plain: Floats
    tokens: int


class InputSums:
    """Collects E[x] and E[x²] by matrix; `add` is an observer of `Reference`."""

    def __init__(self) -> None:
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._plain: dict[str, npt.NDArray[np.float64]] = {}
        self._tokens: dict[str, int] = {}

    def add(self, name: str, inputs: Floats) -> None:
        """Take in `inputs` (tokens, columns) of the matrix `name`."""
        squares = np.einsum("ij,ij->j", inputs, inputs).astype(np.float64)
        self._squares[name] = self._squares.get(name, 0) + squares
        self._plain[name] = self._plain.get(name, 0) + inputs.sum(axis=0, dtype=np.float64)
        self._tokens[name] = self._tokens.get(name, 0) + len(inputs)

    def sums(self) -> dict[str, Sums]:
        """The sums so far, by the matrix's checkpoint name."""
        return {
            name: Sums(
                squares.astype(np.float32),
                self._plain[name].astype(np.float32),
                self._tokens[name],
            )
            for name, squares in self._squares.items()
        }

    def inputs(self) -> dict[str, Inputs]:
        """Statistics of every matrix's inputs, by the matrix's checkpoint name.

        They are computed from sums in float32, as files store them: a file that is read back gives
        the same statistics.
        """
        return {
            name: Inputs(
                sums.squares / np.float32(sums.tokens), sums.plain / np.float32(sums.tokens)
            )
            for name, sums in self.sums().items()
        }

    def gather(
        self, source: WeightSource, sequences: Sequence[npt.NDArray[np.int32]]
    ) -> Iterator[int]:
        """Take in the inputs of every matrix of `source`; yields how many sequences are done."""
        reference = Reference(source, observe=self.add)
        step = max(1, BATCH_TOKENS // max(len(sequence) for sequence in sequences))
        for first in range(0, len(sequences), step):
            for hidden in reference.hidden_states(sequences[first : first + step]):
                self.add(source.architecture.head_name, hidden)
            yield min(first + step, len(sequences))
