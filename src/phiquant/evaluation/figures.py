"""The figures over a text: a candidate's logits against the reference's, window by window."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from phiquant.errors import ArtifactError
from phiquant.evaluation.metrics import Divergence, DivergenceMeter
from phiquant.evaluation.stopping import LikelyEnd, likely_ends
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.phi.weights import Tokens
from phiquant.quantization.grid import Floats


@dataclass(frozen=True, slots=True)
class TextMeasurement:
    """The figures over a text, and the places where the candidate would end it."""

    figures: Divergence
    likely_ends: dict[int, LikelyEnd]


def measure(
    truth: ReferenceFigures,
    candidate: Iterable[Floats],
    ends: Collection[int],
    advance: Callable[[], None] = lambda: None,
) -> TextMeasurement:
    """Compare the candidate's logits (tokens, vocabulary) of every window, one window at a time.

    Raises ArtifactError where the candidate has another vocabulary.
    """
    meter = DivergenceMeter()
    likely: dict[int, LikelyEnd] = {}
    for at, logits in enumerate(candidate):
        tokens, true = truth.windows[at], truth.logits(at)
        check_vocabulary(logits, true)
        meter.add(true, logits, tokens)
        for end, place in likely_ends(tokens, logits, ends).items():
            if end not in likely or len(place.prompt) < len(likely[end].prompt):
                likely[end] = place
        advance()
    return TextMeasurement(meter.result(), likely)


def mean_divergence(reference: Floats, candidate: Floats, tokens: Tokens) -> float:
    """Mean KL divergence, in nats a token, over one stretch of logits (tokens, vocabulary)."""
    check_vocabulary(candidate, reference)
    meter = DivergenceMeter()
    meter.add(reference, candidate, tokens)
    return meter.result().mean.value


def check_vocabulary(candidate: Floats, reference: Floats) -> None:
    """ArtifactError where the candidate's logits have another shape than the reference's."""
    if candidate.shape != reference.shape:
        raise ArtifactError(
            f"the runtime gives {candidate.shape[-1]} logits a token, the model has "
            f"{reference.shape[-1]}"
        )
