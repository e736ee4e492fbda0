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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.splitting import SPACE

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
BPE = 2


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
        fields = list(_fields(data))
        pieces = [_piece(value) for number, value in fields if number == 1]
        trainer = _merged(fields, 2)
        normalizer = _merged(fields, 3)
    except (IndexError, struct.error, ValueError, TypeError) as error:
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
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(mergeable, key=mergeable.__getitem__)
        for cut in range(1, len(piece))
        if piece[:cut] in mergeable and piece[cut:] in mergeable
    ]
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


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (number, value) pairs of one message; fixed-width values stay bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        match key & 7:
            case 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case wire:
                raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise ValueError(f"{size} bytes expected at byte {at}, {len(data) - at} left")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, lowest first, the high bit set on all but the last."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _piece(data: int | bytes) -> tuple[str, float, int]:
    piece, score, kind = "", 0.0, NORMAL
    for number, value in _fields(_as_bytes(data)):
        if number == 1:
            piece = _as_bytes(value).decode("utf-8")
        elif number == 2:
            (score,) = struct.unpack("<f", _as_bytes(value))
        elif number == 3 and isinstance(value, int):
            kind = value
    return piece, score, kind


def _merged(fields: Sequence[tuple[int, int | bytes]], number: int) -> dict[int, int | bytes]:
    """The last value of each field of the embedded message `number`."""
    return {
        inner: value
        for outer, data in fields
        if outer == number
        for inner, value in _fields(_as_bytes(data))
    }


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where text or a message was expected")
    return value
