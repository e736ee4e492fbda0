"""A SentencePiece `tokenizer.model`, for checkpoints that have no `tokenizer.json`.

The file is one protocol buffer (sentencepiece_model.proto). Of it we need

    ModelProto      1 pieces (repeated)   2 trainer_spec    3 normalizer_spec
    SentencePiece   1 piece (string)      2 score (float)   3 type (enum, 1 if absent)
    TrainerSpec     3 model_type (1 Unigram, 2 BPE)
    NormalizerSpec  1 name    2 precompiled_charsmap    3 add_dummy_prefix
                    4 remove_extra_whitespaces (3 and 4 are true if absent)

which is little enough to read here, rather than to depend on a compiled package.
`as_tokenizer_json` restates the model in the terms of the `tokenizers` library.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from phiquant.errors import TokenizerError
from phiquant.host.shown import shown
from phiquant.host.wire import Value, fields
from phiquant.phi.tokenizer.limits import check_pieces, counted
from phiquant.phi.tokenizer.splitting import SPACE

KINDS = range(1, 7)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = KINDS
BPE = 2
MODEL = "tokenizer.model"
MOST_PIECES = 300_000
"""Phi-3 has 32,000; each takes some microseconds to read."""
MOST_MERGES = 300_000
"""Pairs of pieces that make a piece; Phi-3 has 61,000."""
MOST_FIELDS = 1000
"""Of a piece or of a specification, which have some dozens."""


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """Pieces in id order, with SentencePiece's own scores and type numbers."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    add_dummy_prefix: bool


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """Parse the bytes of a `tokenizer.model`.

    Raises TokenizerError for broken bytes, and for Unigram models and text normalization,
    neither of which a Phi model has.
    """
    try:
        message = list(fields(memoryview(data), MOST_PIECES))
        pieces = [_piece(value) for number, value in message if number == 1]
        trainer = _merged(message, 2)
        normalizer = _merged(message, 3)
    except (struct.error, ValueError) as error:
        raise TokenizerError(
            f"tokenizer.model is no SentencePiece model ({error}); download it again"
        ) from error
    if not pieces:
        raise TokenizerError("tokenizer.model is no SentencePiece model: it holds no pieces")
    if trainer.get(3, 1) != BPE:
        raise TokenizerError(
            "expected a SentencePiece model of type BPE, as Phi-3 has; tokenizer.model has model "
            f"type {trainer.get(3, 1)!r} (1 is Unigram), which is not supported"
        )
    if normalizer.get(2) or normalizer.get(4, 1):
        raise TokenizerError(
            "tokenizer.model normalizes its text (character map or removal of extra spaces); "
            "only models that take text as it is are supported, as Phi-3's does"
        )
    texts, scores, types = zip(*pieces, strict=True)
    check_pieces(texts, (), MODEL)
    ((text, count),) = Counter(texts).most_common(1)
    if count > 1:
        raise TokenizerError(
            f"tokenizer.model has the piece {shown(text)} {count} times; every piece must have one "
            "id: download it again"
        )
    return SentencePieceModel(texts, scores, types, bool(normalizer.get(3, 1)))


def as_tokenizer_json(model: SentencePieceModel, added: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The model as a tokenizer.json document, with `added` tokens in that format's shape.

    A pair may merge if the result is a piece, best score first (ties: lower id); control and
    unknown pieces never come out of a merge.
    """
    mergeable = {
        piece: (-score, index)
        for index, (piece, score, kind) in enumerate(
            zip(model.pieces, model.scores, model.types, strict=True)
        )
        if kind in (NORMAL, USER_DEFINED, UNUSED)
    }
    merges = list(counted(_merges(mergeable), MODEL, MOST_MERGES))
    unknown = next(
        (p for p, t in zip(model.pieces, model.types, strict=True) if t == UNKNOWN), None
    )
    own = [
        _added(index, piece, special=kind != USER_DEFINED)
        for index, (piece, kind) in enumerate(zip(model.pieces, model.types, strict=True))
        if kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    named = {token["content"] for token in added}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if model.add_dummy_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted(
            [*(token for token in own if token["content"] not in named), *added],
            key=lambda token: int(token["id"]),
        ),
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": decoders + (strip if model.add_dummy_prefix else []),
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unknown,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(model.pieces)},
            "merges": [list(pair) for pair in merges],
        },
    }


def _merges(mergeable: Mapping[str, tuple[float, int]]) -> Iterator[tuple[str, str]]:
    """Every pair of pieces that makes a piece, those of the best pieces first."""
    for piece in sorted(mergeable, key=mergeable.__getitem__):
        for cut in range(1, len(piece)):
            if piece[:cut] in mergeable and piece[cut:] in mergeable:
                yield piece[:cut], piece[cut:]


def _added(number: int, piece: str, *, special: bool) -> dict[str, Any]:
    return {
        "id": number,
        "content": piece,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def _piece(message: Value) -> tuple[str, float, int]:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in fields(_bytes(message), MOST_FIELDS):
        if number == 1:
            piece = _bytes(value).tobytes().decode("utf-8")
        elif number == 2:
            (score,) = struct.unpack("<f", _bytes(value))
        elif number == 3 and isinstance(value, int):
            kind = value
    if not piece or not isfinite(score) or kind not in KINDS:
        raise ValueError(f"the piece {shown(piece)} with the score {score} and the type {kind}")
    return piece, score, kind


def _merged(message: Sequence[tuple[int, Value]], number: int) -> dict[int, Value]:
    """The last value of each field of the embedded message `number`."""
    return {
        inner: value
        for outer, data in message
        if outer == number
        for inner, value in fields(_bytes(data), MOST_FIELDS)
    }


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where text or a message was expected")
    return value
