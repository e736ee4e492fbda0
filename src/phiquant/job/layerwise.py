"""The calibrated way through the house: blocks in network order, each rounded for what it gets.

First channels are re-scaled (`quantization.rescaling`): other weights, but the same network, and
the original from here on. It goes there and back, for what each layer's outputs are worth to its
answer (`calibration.fisher`), which is the same for all artifacts. Then for every artifact in the
making the sample walks through a network of its own, whose layers so far are the artifact's. The
embedding comes first; a tied one is rounded as the head that it also is, against the moments of the
original's last hidden states. Then block by block (`walk`), and the head last. Everything rounded
goes to a journal on the disk, from which the writers take it like any other band of a tensor, and
with which a killed job goes on at the block it was in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from phiquant.calibration.cost import HEAD_TOKENS, Cost, product_rate, rescaling_sample
from phiquant.calibration.fisher import gather_output_moments
from phiquant.calibration.hidden_states import HiddenStates
from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.journal import Journal, Region, keep
from phiquant.calibration.moments import Moments
from phiquant.calibration.walk import Sides, gather, walk_block
from phiquant.phi.architecture import Architecture
from phiquant.phi.network.linear import embed
from phiquant.phi.network.parts import Step, Weight
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Floats, Tokens, WeightSource, row_bands
from phiquant.planning.plan import PlanRow
from phiquant.progress import OnProgress
from phiquant.quantization.feedback.rounder import Method, Rounder
from phiquant.quantization.grid import AffineGrid, Grid, Parts, grid_over
from phiquant.quantization.rescaling import Factors, Rescaled, even_factors


@dataclass(frozen=True, slots=True)
class Calibration:
    """What is rounded against, and how: token ids (count, length), and the method."""

    sequences: Tokens
    method: Method


@dataclass(frozen=True, slots=True)
class Wanted:
    """An artifact to be rounded: its name in the journal, and what is stored of each weight."""

    name: str
    rows: Mapping[str, Sequence[PlanRow]]
    grids: Mapping[str, Grid]

    def grid(self, row: PlanRow) -> Grid:
        """The grid of a tensor, with a group of its own for every row length."""
        return grid_over(self.grids[row.grid], row.shape[-1])

    def whole(self, weight: Weight) -> tuple[PlanRow, Grid]:
        """The tensor of a weight that is not stored by its parts, and its grid."""
        (row,) = self.rows[weight.name]
        return row, self.grid(row)


def calibrate(
    source: WeightSource,
    wanted: Sequence[Wanted],
    over: Calibration,
    journal: Journal,
    on_progress: OnProgress,
) -> Rescaled:
    """Round every matrix of `source` for all of `wanted` into `journal`.

    Output moments and blocks that the journal has already are not done again. Returns the network
    that was rounded, whose norms go with what was kept.
    """
    sequences, method = over.sequences, over.method
    cost = Cost(source.architecture, sequences.size, sequences.shape[1], len(wanted), method)
    done = journal.blocks * cost.block()
    if journal.factors() is not None:
        done += cost.rescaling
    if cost.fisher is not None:
        done += cost.fisher.steps(journal.output_steps)
    share = 1 - done / cost.total
    cost.report(done, on_progress, seconds=share * cost.seconds(product_rate()))
    source = Rescaled(source, _factors(source, sequences, journal) if method.rescaling else {})
    done = max(done, cost.rescaling)
    if cost.fisher is not None:
        for way in gather_output_moments(source, sequences, journal):
            done += cost.fisher.way(way)
            cost.report(done, on_progress)
    run = _Run(source, wanted, over, journal)
    if not journal.blocks:
        run.begin()
    for layer in range(journal.blocks, source.architecture.layers):
        for weight in walk_block(source, run.sides, layer):
            done += cost.layer(weight)
            cost.report(done, on_progress)
        journal.complete(layer + 1, run.states())
    run.finish()
    cost.report(cost.total, on_progress)
    return source


def _factors(source: WeightSource, sequences: Tokens, journal: Journal) -> Factors:
    """By what channels are re-scaled, from the journal where it has that."""
    kept = journal.factors()
    if kept is not None:
        return kept
    seen = InputSums()
    for _ in seen.gather(source, list(rescaling_sample(sequences))):
        pass
    factors = even_factors(source, seen.inputs())
    journal.keep_factors(factors)
    return factors


class _Network:
    """One artifact's network: its hidden states, and how its weights are rounded and kept."""

    def __init__(
        self, wanted: Wanted, states: HiddenStates, method: Method, journal: Journal
    ) -> None:
        self.wanted, self.states = wanted, states
        self._method, self._journal = method, journal

    def round(self, weight: Weight, values: Floats, moments: Moments) -> Floats:
        """Round and keep a whole weight; what it decodes to."""
        outputs = self._journal.output_moments(weight.name)
        rounders: dict[int, Rounder] = {}
        decoded = np.empty(weight.shape, np.float32)
        for row in self.wanted.rows[weight.name]:
            grid, here = self.wanted.grid(row), row.overlap(0, weight.shape[0])
            if grid.block not in rounders and hasattr(grid, "fit"):
                rounders[grid.block] = Rounder(moments, grid.block, self._method, outputs)
            parts = _rounded(grid, values[here], rounders.get(grid.block), row.first)
            keep(self._journal.make(self.wanted.name, row.output, grid.layout(row.shape)), 0, parts)
            decoded[here] = grid.decode(parts, weight.shape[1])
        return decoded

    def round_in_bands(self, weight: Weight, source: WeightSource, moments: Moments | None) -> None:
        """Round and keep a weight too large to be held whole; without moments, to the nearest."""
        row, grid = self.wanted.whole(weight)
        rounder = None
        if moments is not None and hasattr(grid, "fit"):
            rounder = Rounder(moments, grid.block, self._method)
        into = self._journal.make(self.wanted.name, row.output, grid.layout(weight.shape))
        for first, last in row_bands(*weight.shape):
            values = source.weight(weight.name, first, last)
            keep(into, first, _rounded(grid, values, rounder, first))

    def rows(self, weight: Weight, ids: npt.NDArray[np.int32]) -> Floats:
        """Some rows of a weight that is kept, decoded."""
        row, grid = self.wanted.whole(weight)
        parts = self._journal.parts(self.wanted.name, row.output, grid.layout(weight.shape))
        return grid.decode({name: part[ids] for name, part in parts.items()}, weight.shape[1])


def _rounded(grid: Grid, rows: Floats, rounder: Rounder | None, first: int) -> Parts:
    """Rows of a weight from `first` on; without a rounder, and on a grid of floats, the nearest."""
    if rounder is None or not hasattr(grid, "fit"):
        return grid.encode(rows)
    return rounder.round(rows, cast(AffineGrid, grid), first)


class _Run:
    """All networks, side by side."""

    def __init__(
        self,
        source: WeightSource,
        wanted: Sequence[Wanted],
        over: Calibration,
        journal: Journal,
    ) -> None:
        sequences, method = over.sequences, over.method
        self._source, self._sequences = source, sequences
        self._architecture: Architecture = source.architecture

        def states(name: str) -> HiddenStates:
            path = journal.directory / name
            return HiddenStates(self._architecture, sequences, path, journal.blocks)

        networks = [_Network(recipe, states(recipe.name), method, journal) for recipe in wanted]
        self.sides = Sides(states("original") if method.looks_at_original else None, networks)
        self._networks = networks

    def states(self) -> list[Region]:
        """The sample's states in every network: what the next block begins with."""
        streams = [network.states for network in self._networks]
        return [
            stream.region
            for stream in ([self.sides.original] if self.sides.original else []) + streams
        ]

    def begin(self) -> None:
        """Round the embeddings, and embed the sample."""
        weight = self._architecture.network.embedding.weight
        moments = self._head_moments() if self._architecture.tied_head else None
        for network in self._networks:
            network.round_in_bands(weight, self._source, moments)
            for chunk in network.states.chunks():
                ids = self._sequences[chunk.first : chunk.last].reshape(-1)
                network.states.embed(chunk, network.rows(weight, ids))
        original = self.sides.original
        if original is not None:
            for chunk in original.chunks():
                ids = self._sequences[chunk.first : chunk.last].reshape(-1)
                original.embed(chunk, embed(self._source, ids))

    def finish(self) -> None:
        """Round the heads that are not their embeddings too."""
        if self._architecture.tied_head:
            return
        network = self._architecture.network
        gains = self._source.weight(network.norm.gains.name)
        moments = gather(self.sides, Step(network.head, network.norm, None), gains)
        for made, moment in zip(self._networks, moments, strict=True):
            made.round_in_bands(network.head.weight, self._source, moment)

    def _head_moments(self) -> Moments:
        """The moments of what the original's head takes."""
        length = self._sequences.shape[1]
        moments = Moments(self._architecture.hidden_size)
        few = self._sequences[: max(1, HEAD_TOKENS // length)]
        step = max(1, 4096 // length)
        reference = Reference(self._source)
        for first in range(0, len(few), step):
            for hidden in reference.hidden_states(list(few[first : first + step])):
                moments.add(hidden)
        return moments
