"""Does a generation end where the model says that it ends?

Three questions: does the runtime's rule stop at each end-of-sequence token of the checkpoint, does
it let ordinary tokens pass, and does a generation really end by itself. For the last one, prompts
are taken from the measured text after which the artifact's most likely next token *is* an end,
clearly so; and the answer to a chat prompt is let run. Where neither comes to an end within the
limit, that is reported as not observed.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.phi.listed import listed
from phiquant.phi.weights import Tokens
from phiquant.quantization.grid import Floats
from phiquant.targets.target import Generation, Runner

MARGIN = 0.5
"""How far an end's logit must lead for it to be expected of a generation: beyond the difference
between a runtime's step by step decoding and its pass over a whole prompt."""


@dataclass(frozen=True, slots=True)
class LikelyEnd:
    """A prompt after which an end token leads, and by how much its logit does."""

    prompt: Tokens
    margin: float


def likely_ends(tokens: Tokens, logits: Floats, ends: Collection[int]) -> dict[int, LikelyEnd]:
    """For each end token that clearly leads after a prefix of `tokens`, the shortest such prefix.

    `logits` has shape (tokens, vocabulary).
    """
    likely: dict[int, LikelyEnd] = {}
    leaders = logits.argmax(axis=1)
    for at in np.flatnonzero(np.isin(leaders, list(ends))):
        second, first = np.partition(logits[at], -2)[-2:]
        end, margin = int(leaders[at]), float(first - second)
        if margin > MARGIN and end not in likely:  # places come in their order
            likely[end] = LikelyEnd(tokens[: at + 1].copy(), margin)
    return likely


def check_rule(
    runner: Runner, ends: Mapping[int, str], ordinary: Collection[int], special: Mapping[int, str]
) -> Check:
    """Whether the runtime stops at each of `ends` and at no `ordinary` token.

    `ends` and `special` map ids to texts. That the runtime stops at further special tokens is
    said, but is no fault: llama.cpp knows the usual ends of turns by their text.
    """
    missing = [f"{text} ({end})" for end, text in ends.items() if not runner.stops_at(end)]
    if missing:
        return failed("stopping rule", f"the runtime does not stop at {listed(missing)}")
    wrong = [str(token) for token in ordinary if token not in ends and runner.stops_at(token)]
    if wrong:
        return failed("stopping rule", f"the runtime stops at ordinary tokens: {listed(wrong)}")
    further = [
        text for token, text in special.items() if token not in ends and runner.stops_at(token)
    ]
    also = f"; it also stops at {listed(further)}" if further else ""
    return passed(
        "stopping rule",
        f"the runtime stops at {listed([f'{text} ({end})' for end, text in ends.items()])} "
        f"and at none of {len(ordinary)} ordinary tokens{also}",
    )


def check_generation(
    runner: Runner, likely: Mapping[int, LikelyEnd], ends: Mapping[int, str], answer: Generation
) -> Check:
    """Whether generations end: after the prompts of `likely`, and in the `answer` to a chat."""
    observed = []
    for end, after in likely.items():
        generation = runner.generate(after.prompt, limit=2)
        if not generation.stopped or len(generation.tokens) > 1:
            return failed(
                "generation",
                f"after a prompt of {len(after.prompt)} tokens the likeliest next token is "
                f"{ends[end]} by {after.margin:.2g} logits, but the generation went on with "
                f"{generation.text!r:.60}",
            )
        observed.append(ends[end])
    if observed:
        return passed("generation", f"generations ended by themselves at {listed(observed)}")
    if answer.stopped:
        return passed(
            "generation",
            f"the answer to a prompt ended by itself after {len(answer.tokens)} tokens",
        )
    return Check(
        "generation",
        Outcome.UNOBSERVED,
        f"no end of sequence came up in the text or in the {len(answer.tokens)} tokens of an "
        "answer; only the stopping rule was checked",
    )
