"""Does the runtime cut text into the same tokens as the checkpoint's own tokenizer?"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from phiquant.evaluation.check import Check, Outcome, failed, passed
from phiquant.targets.target import Runner

SHOWN = 24
"""Tokens that are shown of a disagreement."""


class Encoder(Protocol):
    """The checkpoint's tokenizer, as far as it is needed here."""

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: special tokens in the text are recognised, none is added."""


def check_tokens(runner: Runner, tokenizer: Encoder, corpus: Iterable[str]) -> Check:
    """Compare the token ids of every text of the corpus."""
    texts = list(corpus)
    faults = []
    total = 0
    for text in texts:
        expected = tokenizer.encode(text)
        actual = runner.tokenize(text)
        total += len(expected)
        if actual != expected:
            faults.append((text, actual, expected))
    if not faults:
        return passed(
            "tokens",
            f"{len(texts)} texts give the same {total} tokens as the checkpoint's tokenizer",
        )
    text, actual, expected = min(faults, key=lambda fault: len(fault[0]))
    at = first_difference(actual, expected)
    return failed(
        "tokens",
        f"{len(faults)} of {len(texts)} texts are tokenized otherwise than by the checkpoint's "
        f"tokenizer; the shortest is {text[:60]!r}: from token {at} on "
        f"{actual[at : at + SHOWN]}, expected {expected[at : at + SHOWN]}",
    )


def check_spacing(runner: Runner, tokenizer: Encoder, corpus: Iterable[str]) -> Check:
    """Compare texts with white space beside special tokens.

    Whether a special token swallows it is a flag of the tokenizer that some formats cannot
    store; a difference is the format's limitation, and named as such.
    """
    check = check_tokens(runner, tokenizer, corpus)
    if not check.failed:
        return Check("spacing", check.outcome, check.finding)
    return Check(
        "spacing",
        Outcome.LIMITED,
        f"white space beside special tokens is kept or dropped otherwise: {check.finding}",
    )


def first_difference(actual: Sequence[object], expected: Sequence[object]) -> int:
    """The first place where two sequences differ: the end of the shorter where it begins both."""
    shared = zip(actual, expected, strict=False)
    return next((at for at, (a, b) in enumerate(shared) if a != b), min(len(actual), len(expected)))
