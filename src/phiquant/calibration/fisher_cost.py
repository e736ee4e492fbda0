"""What the run there and back for the output moments takes: operations and disk.

Operations are counted as in `cost`: those of the matrix products. A block is gone through
forwards, again up to its gate on the way back, and backwards.
"""

from dataclasses import dataclass

from phiquant.calibration import fisher
from phiquant.calibration.divergence import LOGITS
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Linear
from phiquant.phi.weights import BAND_WEIGHTS
from phiquant.quantization.feedback.rounder import ROWS


@dataclass(frozen=True, slots=True)
class FisherCost:
    """The cost of the run over a sample of `sample` tokens, `length` a sequence."""

    architecture: Architecture
    sample: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens over which the run goes: see `fisher.taken`."""
        return min(self.sample, max(1, fisher.TOKENS // self.length) * self.length)

    def way(self, way: str) -> int:
        """Operations of a block "forward" or "backward", or of the "head"."""
        network = self.architecture.network
        if way == "head":  # the logits twice, and the gradient
            return 6 * self.tokens * network.head.rows * network.head.columns
        rows, weights = self._rows(), self._weights()
        attended = 2 * self.tokens * self.length * network.blocks[0].attention.width
        forward = 2 * self.tokens * weights + attended
        if way == "forward":
            return forward
        last = self._layers()[-1]  # is not needed on the way back
        again = forward - 2 * self.tokens * last.rows * last.columns
        # Five products of the size of the two that attention takes; the moments of bands of rows.
        back = 2 * self.tokens * weights + 5 * attended // 2
        return again + back + 2 * self.tokens * rows * ROWS

    def steps(self, count: int) -> int:
        """Operations of the first `count` steps."""
        return sum(self.way(way) for way in fisher.ways(self.architecture.layers)[:count])

    @property
    def total(self) -> int:
        """Operations of the whole run."""
        return self.steps(len(fisher.ways(self.architecture.layers)))

    @property
    def states(self) -> int:
        """Bytes of disk while it runs: every block's input, and two gradients."""
        model = self.architecture
        return 4 * self.tokens * model.hidden_size * (model.layers + 2)

    @property
    def kept(self) -> int:
        """Bytes of disk that the moments take, until all is rounded."""
        return 4 * ROWS * self._rows() * self.architecture.layers

    @property
    def at_head(self) -> int:
        """Anonymous bytes at the head: states, normed states and their gradients, and a band of the
        head with its logits, its probabilities and their part of the gradient.
        """
        states = 4 * self.tokens * self.architecture.hidden_size
        return 5 * states + 4 * (2 * LOGITS + BAND_WEIGHTS)

    def _rows(self) -> int:
        """Outputs of a block's linear layers, each layer's rounded up to whole bands."""
        return sum(-(-layer.rows // ROWS) * ROWS for layer in self._layers())

    def _weights(self) -> int:
        return sum(layer.rows * layer.columns for layer in self._layers())

    def _layers(self) -> list[Linear]:
        return [step.linear for step in self.architecture.network.blocks[0].steps]
