"""How a `tokenizer.json` prepares text before merging: spaces, and splitting expressions.

The format has steps of many types, alone or in a `Sequence`. They are restated here in three terms
that a target can compare: where a space is put in front, which regular expressions isolate their
matches one after the other, and the names of whatever else there is.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

SPACE = "▁"
"""What SentencePiece writes for a space."""

GPT_2_EXPRESSION = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What a `ByteLevel` step with `use_regex` splits by."""


class SpacePrefix(StrEnum):
    """Where a space is put in front of text that has none."""

    NEVER = "never"
    FIRST = "first"
    """At the very beginning only."""
    EVERY = "every"
    """At the beginning and after every special token."""


def flat(step: Mapping[str, Any] | None, members: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a possibly nested `Sequence`, whose list is called `members`.

    Raises ValueError, KeyError or TypeError for what are no steps.
    """
    if step is None:
        return
    if not isinstance(step["type"], str):
        raise ValueError(f"{step['type']!r:.40} is no type of a step")
    if step["type"] == "Sequence":
        for member in step[members]:
            yield from flat(member, members)
    else:
        yield step


def _is_space_step(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Prepend":
        return bool(step["prepend"] == SPACE)
    if step["type"] == "Replace":
        return bool(step["pattern"] == {"String": " "} and step["content"] == SPACE)
    return False


def other_normalizers(normalizers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names of the normalization steps that do more than write `▁` for spaces."""
    return (str(step["type"]) for step in normalizers if not _is_space_step(step))


def space_prefix_of(
    normalizers: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]
) -> SpacePrefix:
    """Where the steps put a space in front of text."""
    if any(step["type"] == "Prepend" for step in normalizers):
        return SpacePrefix.EVERY
    for step in steps:
        if step["type"] == "Metaspace":
            scheme = step.get("prepend_scheme", "always")
            if step.get("add_prefix_space") is False or scheme == "never":
                return SpacePrefix.NEVER
            return SpacePrefix.FIRST if scheme == "first" else SpacePrefix.EVERY
        if step["type"] == "ByteLevel" and step.get("add_prefix_space", True):
            return SpacePrefix.EVERY
    return SpacePrefix.NEVER


def expressions(steps: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The splitting expressions in order; a step that is none is described in angle brackets."""
    for step in steps:
        match step["type"]:
            case "Split":
                yield _split(step)
            case "Digits":
                yield r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
            case "ByteLevel":
                if step.get("use_regex", True):
                    yield GPT_2_EXPRESSION
            case "Metaspace" if not step.get("split", True):
                pass
            case other:
                yield f"<{other}>"


def _split(step: Mapping[str, Any]) -> str:
    """The expression of a step that isolates its matches; otherwise a description.

    `Removed` with `invert` keeps the matches and drops what lies between them; the expressions in
    use match every character, so that nothing does.
    """
    pattern = step["pattern"]
    expression = pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])
    behaviour, inverted = step["behavior"], bool(step.get("invert", False))
    if behaviour == "Isolated" or (behaviour == "Removed" and inverted):
        return str(expression)
    return f"<Split {behaviour}{' inverted' if inverted else ''}: {expression}>"
