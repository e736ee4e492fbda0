"""The text that statistics are gathered over, cut into sequences of tokens.

The package ships a mixture of several corpora (`texts/`, sources and hashes in its README): prose,
conversations in the model's own chat format, code, arithmetic, and other languages. Each sequence
comes from one corpus, and the corpora take turns in fixed proportions, so that any first few
sequences are a balanced sample. A corpus that has run out is passed over. A user's own file is
sampled at even distances instead.

Sequences begin with the begin-of-sequence token where the tokenizer adds one, as every prompt
does: its place soaks up attention and has activations like no other.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import InputError
from phiquant.host import foreign
from phiquant.host.strict_json import parse_json
from phiquant.phi.tokenizer.chat import Message, chat_text
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.weights import Tokens

SHIPPED = "phiquant mixture 2"

MIXTURE = (
    ("news.txt", 11),
    ("reference.txt", 10),
    ("articles.txt", 9),
    ("speeches.txt", 7),
    ("papers.txt", 6),
    ("manual.txt", 6),
    ("fiction.txt", 6),
    ("lexicon.txt", 3),
    ("dialogues.jsonl", 25),
    ("code.txt", 17),
    ("arithmetic.txt", 10),
    ("languages.txt", 18),
)
"""The corpora of the shipped text, and how many of 128 sequences come from each."""

Item = TypeVar("Item")

GOLDEN = (5**0.5 - 1) / 2

LONGEST_COUNTED = 1 << 20
"""Characters of a text that are encoded to tell how many tokens it has."""

CHARACTERS_PER_TOKEN = 16
"""More characters than a token has on average in any text; a file with more is not encoded
whole."""


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """The text that was calibrated on, as artifacts record it."""

    name: str
    sha256: str
    """SHA-256 of the file's bytes; of the shipped text, of all files' bytes in the mixture's
    order."""
    sequences: int
    """The number of sequences; fewer than were asked for where the text ended."""
    length: int
    """Tokens in each."""

    def as_json(self) -> dict[str, str | int]:
        """The record as it is written."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CalibrationSample:
    """Sequences of `record.length` token ids, int32."""

    tokens: tuple[Tokens, ...]
    record: SampleRecord


def shipped_sample(tokenizer: Tokenizer, sequences: int, length: int) -> CalibrationSample:
    """At most `sequences` of the shipped text; InputError for sizes that make no sense."""
    begin = _begin(tokenizer, sequences, length)
    corpora = [
        (weight, _spread(_cut(tokenizer.encode(_shipped_corpus(name, tokenizer)), begin, length)))
        for name, weight in MIXTURE
    ]
    chosen = tuple(_in_turns(corpora, sequences))
    if not chosen:
        raise InputError(
            f"the shipped text has no sequence of {length} tokens; ask for shorter sequences"
        )
    return _sample(chosen, SHIPPED, shipped_hash(), length)


def glance_of(tokenizer: Tokenizer, sequences: int, length: int) -> CalibrationSample:
    """So many sequences of the shipped text, from each corpus by its share; no more of a corpus is
    encoded than they take. InputError for sizes that make no sense.
    """
    begin = _begin(tokenizer, sequences, length)
    turns = _in_turns([(weight, [name] * sequences) for name, weight in MIXTURE], sequences)
    chosen = [
        sequence
        for name, count in Counter(turns).items()
        for sequence in _at_even_distances(
            _shipped_corpus(name, tokenizer), tokenizer.encode, begin, count, length
        )
    ]
    if not chosen:
        raise InputError(
            f"the shipped text has no sequence of {length} of the model's tokens; choose "
            "`quality=data-free`"
        )
    return _sample(tuple(chosen), SHIPPED, shipped_hash(), length)


def read_sample(path: Path, tokenizer: Tokenizer, sequences: int, length: int) -> CalibrationSample:
    """At most `sequences` of a user's file, at even distances.

    UTF-8 text, or a `.jsonl` whose lines have "text" (a string) or "messages" (a conversation).
    Raises InputError where the file cannot be read so, or has not one whole sequence.
    """
    begin = _begin(tokenizer, sequences, length)
    data = foreign.read_bytes(path, foreign.TEXT)
    text = foreign.decoded(data, path, foreign.TEXT, "utf-8-sig")
    if path.suffix == ".jsonl":
        text = "".join(_documents(text, path, tokenizer))
    chosen = tuple(_at_even_distances(text, tokenizer.encode, begin, sequences, length))
    if not chosen:
        count = len(tokenizer.encode(text[:LONGEST_COUNTED]))
        more = " or some more" if len(text) > LONGEST_COUNTED else ""
        raise InputError(
            f"expected at least {length} tokens in {path}, found {count}{more}; give a longer text "
            "or ask for shorter sequences"
        )
    return _sample(chosen, path.name, sha256(data).hexdigest(), length)


def sample_of(tokenizer: Tokenizer, text: CalibrationText) -> CalibrationSample:
    """The sample that `text` asks for."""
    if text.file is None:
        return shipped_sample(tokenizer, text.sequences, text.length)
    return read_sample(text.file, tokenizer, text.sequences, text.length)


@cache
def shipped_hash() -> str:
    """SHA-256 of the shipped files' bytes, in the order of the mixture."""
    total = sha256()
    for name, _ in MIXTURE:
        total.update(_shipped_bytes(name))
    return total.hexdigest()


def _sample(chosen: tuple[Tokens, ...], name: str, digest: str, length: int) -> CalibrationSample:
    return CalibrationSample(chosen, SampleRecord(name, digest, len(chosen), length))


def _begin(tokenizer: Tokenizer, sequences: int, length: int) -> tuple[int, ...]:
    """The tokens that every sequence begins with; InputError for sizes that make no sense."""
    if sequences < 1 or length < 2:
        raise InputError(
            "calibration needs at least one sequence of at least 2 tokens, "
            f"got {sequences} of {length}"
        )
    special = tokenizer.special
    return (special.bos,) if special.add_bos and special.bos is not None else ()


def _shipped_bytes(name: str) -> bytes:
    return (resources.files("phiquant.calibration") / "texts" / name).read_bytes()


def _shipped_corpus(name: str, tokenizer: Tokenizer) -> str:
    text = _shipped_bytes(name).decode("utf-8")
    if not name.endswith(".jsonl"):
        return text
    return "".join(_documents(text, Path(name), tokenizer))


def _documents(text: str, path: Path, tokenizer: Tokenizer) -> Iterator[str]:
    """The documents of a JSON Lines file as text, in order."""
    special = {token.text for token in tokenizer.definition.added}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield _document(parse_json(line), special)
        except (ValueError, TypeError) as error:
            raise InputError(
                f'expected {{"text": …}} or {{"messages": [{{"role": …, "content": …}}, …]}} in '
                f"line {number} of {path}, found something else ({error}); correct the line or "
                "take it out"
            ) from error


def _document(record: object, special: set[str]) -> str:
    if not isinstance(record, dict):
        raise TypeError("no object")
    if "messages" in record:
        messages = record["messages"]
        if not isinstance(messages, list):
            raise TypeError("messages is no list")
        return chat_text([_message(entry) for entry in messages], special)
    text = record.get("text")
    if not isinstance(text, str):
        raise TypeError("text is no string")
    return text + "\n\n"


def _message(entry: object) -> Message:
    if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
        raise TypeError("a message has no role")
    if not isinstance(entry.get("content"), str | None):
        raise TypeError("content is no string")
    return entry


def _cut(tokens: Sequence[int], begin: tuple[int, ...], length: int) -> list[Tokens]:
    """The whole sequences of `tokens`, one after another."""
    own = length - len(begin)
    return [
        np.array([*begin, *tokens[at : at + own]], np.int32)
        for at in range(0, len(tokens) - own + 1, own)
    ]


def _spread(cuts: list[Tokens]) -> list[Tokens]:
    """The cuts in an order of which every beginning lies evenly over the text.

    They are ordered by the fractions of multiples of the golden ratio, a low-discrepancy sequence.
    """
    order = sorted(range(len(cuts)), key=lambda at: at * GOLDEN % 1.0)
    return [cuts[at] for at in order]


def _in_turns(corpora: list[tuple[int, list[Item]]], count: int) -> Iterator[Item]:
    """Up to `count` items, each the next of the corpus that is furthest behind its share."""
    total = sum(weight for weight, _ in corpora)
    taken = [0] * len(corpora)
    for step in range(1, count + 1):
        left = [at for at, (_, cuts) in enumerate(corpora) if taken[at] < len(cuts)]
        if not left:
            return
        at = max(left, key=lambda at: (corpora[at][0] * step - taken[at] * total, -at))
        yield corpora[at][1][taken[at]]
        taken[at] += 1


def _at_even_distances(
    text: str,
    encode: Callable[[str], list[int]],
    begin: tuple[int, ...],
    sequences: int,
    length: int,
) -> Iterator[Tokens]:
    """Sequences spread over the whole text; of a long text only stretches are encoded."""
    stretch = length * CHARACTERS_PER_TOKEN
    if len(text) <= sequences * stretch:
        cuts = _cut(encode(text), begin, length)
        count = min(sequences, len(cuts))
        yield from (cuts[index * len(cuts) // count] for index in range(count))
        return
    for index in range(sequences):
        at = index * (len(text) - stretch) // max(sequences - 1, 1)
        yield from _cut(encode(text[at : at + stretch]), begin, length)[:1]
