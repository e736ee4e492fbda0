"""Does the runtime compute the network that the artifact's weights and metadata describe?

A short run in the runtime against the reference forward over the same decoded weights: rounding
of weights is in both, so what differs is arithmetic. Where the runtime is too slow for a whole
text, this is what entitles the reference forward to speak for it.
"""

from dataclasses import asdict, dataclass

import numpy as np

from phiquant.errors import ArtifactError
from phiquant.evaluation.check import Check, failed, passed
from phiquant.evaluation.figures import check_vocabulary, mean_divergence
from phiquant.evaluation.thresholds import Limit
from phiquant.phi.reference import Reference
from phiquant.phi.weights import Tokens
from phiquant.targets.target import Runner

SHORT_RUN = 64
"""Tokens of the run."""
SLOW_RUN = 16
"""The same of a slow runtime, which takes about as long for each of them as for a new token."""


@dataclass(frozen=True, slots=True)
class Parity:
    """The runtime against the reference forward over the decoded weights, over a short run."""

    tokens: int
    mean_kl: float
    """Nats a token."""
    max_logit_difference: float

    def as_json(self) -> dict[str, float]:
        """The figures as they are recorded."""
        return asdict(self)


def measure_parity(runner: Runner, decoded: Reference, tokens: Tokens) -> Parity:
    """Run the first `SHORT_RUN` of `tokens`, or `SLOW_RUN`, through both.

    Raises ArtifactError where the artifact's weights, finite as they are, give logits that are
    not.
    """
    tokens = tokens[: SLOW_RUN if runner.slow else SHORT_RUN]
    with np.errstate(over="ignore", invalid="ignore"):
        expected = decoded.logits(tokens)
    if not np.isfinite(expected).all():
        raise ArtifactError("the decoded weights give logits that are not finite")
    logits = runner.logits(tokens)
    check_vocabulary(logits, expected)
    difference = float(np.abs(logits - expected).max())
    return Parity(len(tokens), mean_divergence(expected, logits, tokens), difference)


def check_parity(parity: Parity, runtime: str, limit: Limit) -> Check:
    """Whether the two agree as closely as arithmetic allows."""
    finding = (
        f"over {parity.tokens} tokens {runtime} and the reference forward over the decoded "
        f"weights differ by {parity.mean_kl:.2g} nats a token and at most "
        f"{parity.max_logit_difference:.2g} in a logit"
    )
    if not parity.mean_kl <= limit.runtime_kl:
        return failed(
            "runtime", f"{finding}; arithmetic explains at most {limit.runtime_kl:g} nats"
        )
    return passed("runtime", finding)
