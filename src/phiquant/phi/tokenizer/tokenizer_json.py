"""What a `tokenizer.json` says: pieces, merges, added tokens, and how text is split.

Two kinds occur in the Phi family, both byte-pair encodings:

- byte-level (Phi-4, Phi-4-mini): text is split by regular expressions, each part's UTF-8 bytes are
  written as 256 printable characters, and merges apply by rank;
- SentencePiece (Phi-3, Phi-3.5): spaces become `▁`, there is no splitting, and what is not in
  the vocabulary falls back to byte tokens `<0x00>` … `<0xFF>`.

The format is that of the `tokenizers` library. Nothing here is specific to a target: what cannot
be named is described, and the target decides.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.documents import is_count
from phiquant.phi.tokenizer.splitting import (
    SpacePrefix,
    expressions,
    flat,
    other_normalizers,
    space_prefix_of,
)

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


class TokenizerKind(StrEnum):
    """The two constructions."""

    BYTE_LEVEL = "byte-level BPE"
    SENTENCEPIECE = "SentencePiece BPE"


class PieceKind(StrEnum):
    """What an id stands for."""

    NORMAL = "normal"
    UNKNOWN = "unknown"
    CONTROL = "control"
    USER_DEFINED = "user-defined"
    UNUSED = "unused"
    BYTE = "byte"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token found in the raw text before anything else, longest first."""

    id: int
    text: str
    special: bool
    lstrip: bool
    """Swallows the white space before it."""
    rstrip: bool
    """Swallows the white space after it."""
    normalized: bool
    """Looked for in the normalized text instead of the raw one."""


@dataclass(frozen=True, slots=True)
class Definition:
    """The vocabulary and the rules of one tokenizer. Lists are indexed by id."""

    kind: TokenizerKind
    pieces: tuple[str, ...]
    """An id without a token has an empty piece."""
    piece_kinds: tuple[PieceKind, ...]
    scores: tuple[float, ...]
    """SentencePiece: the higher, the earlier a pair is merged into the piece. Else empty."""
    merges: tuple[tuple[str, str], ...]
    """Pairs in the order in which they apply."""
    ignore_merges: bool
    """Whether a whole word that is in the vocabulary is taken without merging."""
    added: tuple[AddedToken, ...]
    normalizer: tuple[str, ...]
    """Names of normalization steps besides those on spaces; empty for every published Phi."""
    splitting: tuple[str, ...]
    """Regular expressions that isolate their matches, applied one after the other."""
    space_prefix: SpacePrefix
    begins_with: str | None
    """The special token that the post-processor puts first, if any."""


def read_definition(
    document: Mapping[str, Any], vocabulary_size: int, scores: Mapping[str, float] | None = None
) -> Definition:
    """The definition in a parsed tokenizer.json for a model of `vocabulary_size` ids; `scores` by
    piece where they are known.

    Raises TokenizerError for another kind of tokenizer, ids that two tokens share or that the
    model does not have, and a document that does not have the format's shape.
    """
    try:
        return _definition(document, vocabulary_size, scores)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TokenizerError(
            f"tokenizer.json is malformed ({type(error).__name__}: {error}); download it again"
        ) from error


def _definition(
    document: Mapping[str, Any], vocabulary_size: int, scores: Mapping[str, float] | None
) -> Definition:
    model = document["model"]
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(
            f"expected a byte-pair encoding (BPE) tokenizer, as every Phi model has; "
            f"tokenizer.json holds a {model['type']} model, which is not supported"
        )
    steps = list(flat(document.get("pre_tokenizer"), "pretokenizers"))
    normalizers = list(flat(document.get("normalizer"), "normalizers"))
    kind = _kind(steps, document, bool(model.get("byte_fallback")))
    added = tuple(_added_token(token) for token in document.get("added_tokens") or ())
    pieces = _pieces(model["vocab"], added, vocabulary_size)
    merges = tuple(_pair(merge) for merge in _list(model["merges"]))
    ranked: tuple[float, ...] = ()
    if kind is TokenizerKind.SENTENCEPIECE:
        by_piece = scores if scores is not None else _scores_of(merges)
        last = -float(len(by_piece))
        ranked = tuple(by_piece.get(piece, last) for piece in pieces)
    return Definition(
        kind=kind,
        pieces=pieces,
        piece_kinds=_piece_kinds(pieces, added, model, kind),
        scores=ranked,
        merges=merges,
        ignore_merges=bool(model.get("ignore_merges", False)),
        added=added,
        normalizer=tuple(other_normalizers(normalizers)),
        splitting=tuple(expressions(steps)),
        space_prefix=space_prefix_of(normalizers, steps),
        begins_with=_begins_with(document.get("post_processor")),
    )


def _kind(
    steps: Sequence[Mapping[str, Any]], document: Mapping[str, Any], byte_fallback: bool
) -> TokenizerKind:
    decoders = list(flat(document.get("decoder"), "decoders"))
    if any(step["type"] == "ByteLevel" for step in (*steps, *decoders)):
        return TokenizerKind.BYTE_LEVEL
    if byte_fallback:
        return TokenizerKind.SENTENCEPIECE
    raise TokenizerError(
        "expected a byte-level or a SentencePiece tokenizer; tokenizer.json has neither a "
        "ByteLevel step nor byte fallback, so some text would have no tokens at all"
    )


def _added_token(token: Mapping[str, Any]) -> AddedToken:
    return AddedToken(
        id=token["id"],
        text=token["content"],
        special=bool(token.get("special", False)),
        lstrip=bool(token.get("lstrip", False)),
        rstrip=bool(token.get("rstrip", False)),
        normalized=bool(token.get("normalized", not token.get("special", False))),
    )


def _pieces(
    vocabulary: Mapping[str, int], added: Sequence[AddedToken], vocabulary_size: int
) -> tuple[str, ...]:
    strange = next((piece for piece, number in vocabulary.items() if not is_count(number)), None)
    if strange is not None:
        raise ValueError(f"{vocabulary[strange]!r:.40} is no id")
    by_id: dict[int, str] = {}
    for piece, number in (*vocabulary.items(), *((token.text, token.id) for token in added)):
        if by_id.setdefault(number, piece) != piece:
            raise TokenizerError(
                f"tokenizer.json gives the id {number} to two tokens, {by_id[number]!r} and "
                f"{piece!r}; every id must have one"
            )
        if vocabulary.get(piece, number) != number:
            raise TokenizerError(
                f"tokenizer.json gives the token {piece!r} two ids, {vocabulary[piece]} and "
                f"{number}; every token must have one"
            )
    if not by_id or min(by_id) < 0:
        raise TokenizerError("tokenizer.json has no vocabulary, or one with negative ids")
    if max(by_id) >= vocabulary_size:
        raise TokenizerError(
            f"the tokenizer has ids up to {max(by_id)}, but the model's vocabulary "
            f"has only {vocabulary_size} rows; the two belong to different models, or tokens were "
            "added without resizing the embedding"
        )
    return tuple(by_id.get(number, "") for number in range(max(by_id) + 1))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of merges, found {value!r:.40}")
    return value


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """Merges are pairs, or in older files one string with a space between the two."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(left, str) or not isinstance(right, str):
        raise ValueError(f"{merge!r:.60} is no merge of two pieces")
    return left, right


def _scores_of(merges: Sequence[tuple[str, str]]) -> dict[str, float]:
    """SentencePiece's own numbering: 0 for the piece merged first, −1 for the next, and so on.

    Where tokenizer.json was converted from a SentencePiece model, its merges are sorted by the
    scores of the pieces that they make, so that this restores the order that the scores held.
    """
    made = dict.fromkeys(left + right for left, right in merges)
    return {piece: -float(rank) for rank, piece in enumerate(made)}


def _piece_kinds(
    pieces: Sequence[str],
    added: Sequence[AddedToken],
    model: Mapping[str, Any],
    kind: TokenizerKind,
) -> tuple[PieceKind, ...]:
    kinds = [PieceKind.NORMAL if piece else PieceKind.UNUSED for piece in pieces]
    if kind is TokenizerKind.SENTENCEPIECE:
        for index, piece in enumerate(pieces):
            if BYTE_PIECE.fullmatch(piece):
                kinds[index] = PieceKind.BYTE
    for token in added:
        kinds[token.id] = PieceKind.CONTROL if token.special else PieceKind.USER_DEFINED
    unknown = model.get("unk_token")
    if unknown is not None and unknown in pieces and kind is TokenizerKind.SENTENCEPIECE:
        kinds[pieces.index(unknown)] = PieceKind.UNKNOWN
    return tuple(kinds)


def _begins_with(processor: Mapping[str, Any] | None) -> str | None:
    for step in flat(processor, "processors"):
        if step["type"] == "TemplateProcessing" and step["single"]:
            first = step["single"][0].get("SpecialToken")
            return str(first["id"]) if first else None
    return None
