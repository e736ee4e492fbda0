"""What gathering the sums of inputs takes, before it starts: time and memory.

Every weight of the blocks is read, widened and multiplied by the tokens at hand. The few rows that
the re-scaling of channels looks at after that are not counted.
"""

from dataclasses import dataclass

from phiquant.calibration.hidden_states import widest
from phiquant.calibration.input_sums import BATCH_TOKENS
from phiquant.host.cores import cores
from phiquant.phi.architecture import Architecture

READING = 2e-9
"""Seconds in which a core reads and widens a weight, at most, from the page cache."""


@dataclass(frozen=True, slots=True)
class SumsCost:
    """The cost of gathering sums over `sequences` of `length` tokens."""

    architecture: Architecture
    sequences: int
    length: int

    def seconds(self, rate: float) -> float:
        """The expected time at `rate` operations a second."""
        layers = [step.linear for step in self.architecture.network.steps.values()]
        weights = sum(layer.rows * layer.columns for layer in layers)
        products = 2 * weights * self.sequences * self.length / rate
        return products + weights * READING / cores()

    @property
    def memory(self) -> int:
        """Anonymous bytes of the values of the tokens that go through the network together."""
        network = self.architecture.network
        tokens = min(self.sequences * self.length, max(BATCH_TOKENS, self.length))
        outputs = max(step.linear.rows for step in network.steps.values() if step.norm is not None)
        return 4 * tokens * (3 * network.embedding.columns + widest(network) + outputs)
