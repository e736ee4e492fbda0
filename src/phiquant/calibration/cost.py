"""What a calibrated run takes, before it starts: arithmetic, time, memory and disk.

Counted are the matrix products, in floating-point operations (a multiplication and an addition
each count). The time is theirs at the rate of one large float32 product, measured on the spot,
and a share for all else (norms, softmax, SwiGLU, the rounding of columns), `ALL_ELSE`.
benchmarks/calibration.py compares what was announced with what it took.
"""

import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from phiquant.calibration.fisher_cost import FisherCost
from phiquant.calibration.hidden_states import CHUNK_TOKENS, widest
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.parts import Attention, Network, Step, Weight
from phiquant.phi.weights import Tokens
from phiquant.progress import OnProgress, Progress
from phiquant.quantization.feedback.rounder import ROWS, Method

ALL_ELSE = 1.4
"""Time of a run over that of its matrix products at full rate: 1.33 in
benchmarks/results/calibration.md, for cores with 512-bit vectors, rounded up. Slower products leave
less for all else.
"""

HEAD_TOKENS = 1 << 14
"""Tokens that the moments of a tied embedding are gathered over, at most."""

RESCALING_TOKENS = 1 << 12
"""Tokens that mean squares of inputs are taken over for the re-scaling: only their eighth root
counts.
"""

STAGE = "calibrating"
GIGA = 10**9


def rescaling_sample(sequences: Tokens) -> Tokens:
    """The first of `sequences` (count, length), at least one, over which channels are re-scaled."""
    return sequences[: max(1, RESCALING_TOKENS // sequences.shape[1])]


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of rounding `networks` artifacts of a model over `tokens` tokens, `length` a
    sequence.
    """

    architecture: Architecture
    tokens: int
    length: int
    networks: int
    method: Method

    @property
    def fisher(self) -> FisherCost | None:
        """The cost of the output moments; None where the method does without them."""
        if self.method.output_damping is None:
            return None
        return FisherCost(self.architecture, self.tokens, self.length)

    def layer(self, weight: Weight) -> int:
        """Operations for one matrix: moments, rounding, and every network's pass through it."""
        rows, columns = weight.shape
        method, step = self.method, self._step(weight)
        copies = self.networks + (1 if method.looks_at_original else 0)
        through = 0 if step is None else 2 * self.tokens * rows * columns
        if step is not None and isinstance(step.then, Attention):  # scores and sums: half a square
            through += 2 * self.tokens * self.length * step.then.width
        gathered = (3 if method.shift else 1) * self.tokens * columns**2
        if method.behind and step is not None and step.then is None:
            gathered += 2 * self.tokens * rows * columns
        return copies * through + self.networks * (gathered + self.rounding(weight))

    def rounding(self, weight: Weight) -> int:
        """Operations for rounding one matrix on one grid, once its moments are known."""
        rows, columns = weight.shape
        method, step = self.method, self._step(weight)
        two_sided = self.fisher is not None and step is not None
        parameters = method.parameters and not two_sided
        sweeps = 2 * method.sweeps * (method.codes + parameters)
        # A weight times its correction, and that by substitution, as for the residual stream.
        correction = 2 * (rows + columns) * columns**2 if method.shift else 0
        if method.behind and step is not None and step.then is None:
            correction += 2 * rows * columns**2
        across = rows * columns * ROWS * (1 + 2 * method.sweeps * method.codes) if two_sided else 0
        return rows * columns**2 * (1 + sweeps) + columns**3 // 3 + correction + across

    def block(self) -> int:
        """Operations for one block of the network."""
        return sum(self.layer(step.linear.weight) for step in self._network.blocks[0].steps)

    def ends(self) -> int:
        """Operations for embedding and head."""
        head = self._network.head.weight
        if not self._network.is_tied:
            return self.layer(head)
        tokens = min(self.tokens, HEAD_TOKENS)
        moments = tokens * head.shape[1] ** 2
        return self._forward(tokens) + moments + self.networks * self.rounding(head)

    def _forward(self, tokens: int) -> int:
        """Operations of the original's layers for so many tokens."""
        layers = [step.linear for step in self._network.steps.values()]
        return sum(2 * tokens * layer.rows * layer.columns for layer in layers)

    @property
    def _network(self) -> Network:
        return self.architecture.network

    def _step(self, weight: Weight) -> Step | None:
        """The step of a weight inside of a block; None for embedding and head."""
        return self._network.steps.get(weight.name)

    @property
    def rescaling(self) -> int:
        """Operations for the re-scaling of channels, which comes before all else."""
        if not self.method.rescaling:
            return 0
        return self._forward(
            min(self.tokens, max(1, RESCALING_TOKENS // self.length) * self.length)
        )

    @property
    def total(self) -> int:
        """Operations of the whole run."""
        before = self.fisher.total if self.fisher is not None else 0
        return self.rescaling + before + self.architecture.layers * self.block() + self.ends()

    def seconds(self, rate: float) -> float:
        """The expected time at `rate` operations a second."""
        return self.total / rate * ALL_ELSE

    @property
    def memory(self) -> int:
        """Anonymous bytes at the peak: the widest layer's moments, factored, and its weight.

        Of the run for the output moments, only the step at the head may take more, in a small
        model.
        """
        layers = [step.linear for step in self._network.blocks[0].steps]
        # Sums for every network; then one after another damped, factored and a correction made.
        moments = 4 * max(layer.columns for layer in layers) ** 2 * (2 * self.networks + 5)
        weights = 4 * 4 * max(layer.rows * layer.columns for layer in layers)
        chunk = 4 * CHUNK_TOKENS * 4 * widest(self._network)
        at_head = self.fisher.at_head if self.fisher is not None else 0
        return max(moments + weights + chunk, at_head)

    @property
    def disk(self) -> int:
        """Bytes of scratch space for the sample's states. Rounded weights come on top: see the
        plan.

        The states for the output moments are gone before those of the networks are made; the
        moments stay.
        """
        kept = 2 * self._network.embedding.columns + widest(self._network)
        copies = self.networks + (1 if self.method.looks_at_original else 0)
        walked = 4 * self.tokens * kept * copies
        if self.fisher is None:
            return walked
        return max(walked, self.fisher.states) + self.fisher.kept

    def report(self, done: int, on_progress: OnProgress, seconds: float | None = None) -> None:
        """Tell `on_progress` that `done` operations are over."""
        total = max(1, self.total // GIGA)
        on_progress(Progress(STAGE, min(total, done // GIGA), total, "GFLOP", seconds))


@cache
def product_rate(size: int = 3072, seconds: float = 1.0) -> float:
    """Operations a second of a large float32 product, over `seconds` of trials; the median."""
    random = np.random.default_rng(0)
    left = random.random((CHUNK_TOKENS, size), np.float32)
    right = random.random((size, size), np.float32)
    out = np.empty((CHUNK_TOKENS, size), np.float32)
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 2:
        began = time.perf_counter()
        np.matmul(left, right, out=out)
        rates.append(2 * left.size * size / (time.perf_counter() - began))
    return float(np.median(rates[1:]))
