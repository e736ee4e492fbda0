"""What a `tokenizer.json` may ask of those who read it and of the library that runs it.

The work of a tokenizer grows with the length of its pieces, with the number of its steps and with
what they put in the place of what. Each limit here is several times what the vocabularies of today
take; beyond it a file of a few megabytes could ask for hours and for all memory.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from phiquant.errors import TokenizerError
from phiquant.host.shown import shown
from phiquant.phi.tokenizer.expressions import KNOWN
from phiquant.phi.tokenizer.splitting import flat

JSON = "tokenizer.json"
LONGEST_PIECE = 1024
"""Characters; the longest of Phi-4-mini's is 128 spaces."""
MOST_CHARACTERS = 4 << 20
"""Of all pieces together; Phi-4-mini's have 1.4 million."""
MOST_ADDED = 8192
"""Added tokens, each of which is looked for in the chat template."""
MOST_MERGES = 1_000_000
"""Phi-4-mini has 450,000."""
MOST_STEPS = 32
"""Steps that prepare a text or put it together again."""
LONGEST_REPLACEMENT = 16

AFFIXES = ("continuing_subword_prefix", "end_of_word_suffix")
"""Of pieces. The library cuts the first off every merge, longer or not, and panics where it is."""

STEPS = (
    ("normalizer", "normalizers"),
    ("pre_tokenizer", "pretokenizers"),
    ("decoder", "decoders"),
)
"""Field of tokenizer.json → what the list of a `Sequence` in it is called."""


def check_steps(document: Mapping[str, Any]) -> None:
    """Raise TokenizerError for steps that may take any time or memory on a text."""
    model = document["model"]
    if model.get("dropout"):
        raise _refusal(f"merges left out by chance (dropout {shown(model['dropout'])})")
    for field in AFFIXES:
        if model.get(field):
            raise _refusal(f"{shown(model[field])} for {field}, which the family has not")
    for field, members in STEPS:
        steps = list(flat(document.get(field), members))
        if len(steps) > MOST_STEPS:
            raise _refusal(f"{len(steps)} steps in its {field}, expected at most {MOST_STEPS}")
        for fault in (_fault(step) for step in steps):
            if fault:
                raise _refusal(f"{fault} in its {field}")


def check_pieces(vocabulary: Iterable[str], added: Iterable[str], file: str = JSON) -> None:
    """Raise TokenizerError for a vocabulary, read from `file`, that is beyond the limits."""
    lengths = [len(piece) for piece in vocabulary]
    own = [len(text) for text in added]
    longest, total = max([*lengths, *own, 0]), sum(lengths) + sum(own)
    if longest > LONGEST_PIECE:
        fault = f"a token of {longest:,} characters, expected at most {LONGEST_PIECE:,}"
        raise _refusal(fault, file)
    if total > MOST_CHARACTERS:
        fault = f"tokens of {total:,} characters, expected at most {MOST_CHARACTERS:,}"
        raise _refusal(fault, file)
    if len(own) > MOST_ADDED:
        raise _refusal(f"{len(own):,} added tokens, expected at most {MOST_ADDED:,}", file)
    if 0 in own:
        raise _refusal("an added token without a text", file)


def counted(
    merges: Iterable[tuple[str, str]], file: str = JSON, most: int = MOST_MERGES
) -> Iterator[tuple[str, str]]:
    """The same merges, as they come. Raises TokenizerError where there are too many."""
    for number, merge in enumerate(merges):
        if number == most:
            raise _refusal(f"more than {most:,} merges", file)
        yield merge


def _fault(step: Mapping[str, Any]) -> str:
    """What cannot be allowed of a step; nothing if it can."""
    if step["type"] == "Precompiled":
        return "a compiled table of characters"
    pattern = step.get("pattern")
    expression = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    if expression is not None and expression not in KNOWN:
        return (
            f"the regular expression {shown(expression)}, which no tokenizer of the family has and "
            "which may never come to an end,"
        )
    if step["type"] == "Replace":
        return _fault_of_replacement(step, pattern)
    for field in ("prepend", "replacement", "content"):
        if len(str(step.get(field, ""))) > LONGEST_REPLACEMENT:
            return f"a text of more than {LONGEST_REPLACEMENT} characters ({field})"
    return ""


def _fault_of_replacement(step: Mapping[str, Any], pattern: object) -> str:
    """Replacements may follow one another: none may make a text longer."""
    replaced = pattern.get("String") if isinstance(pattern, Mapping) else pattern
    length = 1 if replaced is None else len(str(replaced))
    if len(str(step["content"])) > length:
        return f"the replacement of {shown(replaced)} by something longer"
    return "" if length else "the replacement of nothing by something"


def _refusal(fault: str, file: str = JSON) -> TokenizerError:
    return TokenizerError(
        f"{file} has {fault}; use the original tokenizer of the model that this one was derived "
        "from"
    )
