"""How much memory and time a runtime may take for an artifact of a given model.

Both follow from the model that the artifact is compared with, and not from the artifact, which
may say what it likes. They are wide: no honest artifact on a slow machine should meet them.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, get_args

from phiquant.host.cores import cores
from phiquant.host.memory import available_memory
from phiquant.phi.architecture import Architecture
from phiquant.phi.survey import Survey
from phiquant.planning.footprint import Use
from phiquant.planning.precision import Precision
from phiquant.targets.form import Request
from phiquant.targets.target import Target

COPIES = 4
"""Times that a runner may hold what the runtime takes: one for logits, one for generation, another
for long sequences, and room for what loading takes meanwhile."""
BASE = 1 << 30
A_CORE = 32 << 20
"""Stacks of the threads that several libraries start for each core; untouched, but counted."""
PATIENCE = 300.0
"""Seconds that any question may take, loading included."""
SLOWEST = 1e8
"""Weights times tokens a second on the slowest machine that is waited for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take that runs an artifact."""

    memory: int
    """Bytes that it may allocate, files that it maps not counted."""
    scarce: bool
    """Whether the machine has no more; else no artifact of the model needs more."""
    weights: int
    vocabulary: int
    """Of the model: its time and the size of its answers go by these."""
    processor_seconds: int
    """Seconds of one core, over all questions."""

    def seconds(self, tokens: int) -> float:
        """What a question may take in which so many tokens go through the network."""
        return PATIENCE + tokens * self.weights / SLOWEST


def limits_for(
    target: Target[Any], architecture: Architecture, longest: int, tokens: int
) -> Limits:
    """Limits for an artifact of a model with `architecture`, by the most that the target's own
    formats take: for sequences of `longest` tokens at most, `tokens` in all.
    """
    longest = min(longest, architecture.max_positions)
    survey = Survey(dict.fromkeys((weight.name for weight in architecture.weights()), 0.0))
    totals = []
    for precision in get_args(Precision):
        form = target.read(Request(precision=precision))
        plan = target.plan(architecture, survey, form)
        totals.append(target.footprint(plan, form, architecture, Use(longest, longest)).total)
    wanted = BASE + A_CORE * cores() + COPIES * max(totals)
    free = available_memory()
    # What is allocated need not be touched, and so may be more than there is, within reason.
    memory = wanted if free is None else min(wanted, free + BASE)
    weights = sum(prod(weight.shape) for weight in architecture.weights())
    return Limits(
        memory=memory,
        scarce=memory < wanted,
        weights=weights,
        vocabulary=architecture.vocabulary_size,
        processor_seconds=int(cores() * (10 * PATIENCE + tokens * weights / SLOWEST)),
    )
