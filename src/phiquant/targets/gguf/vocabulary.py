"""A tokenizer as the key/value pairs of a GGUF file, such that llama.cpp gives the same tokens.

Source of the keys' meaning: docs/gguf.md in ggml's repository and `llama_vocab::impl::load` in
llama.cpp's src/llama-vocab.cpp, as of b11739. Where that file's rules cannot express what the
tokenizer does, the difference is stated in `Vocabulary.deviations`; nothing is dropped in silence.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from phiquant.errors import TokenizerError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.tokenizer.chat_templates import DEFAULT
from phiquant.phi.tokenizer.splitting import SPACE, SpacePrefix
from phiquant.phi.tokenizer.template_white_space import explicit_white_space
from phiquant.phi.tokenizer.tokenizer import Tokenizer
from phiquant.phi.tokenizer.tokenizer_json import Definition, PieceKind, TokenizerKind
from phiquant.targets.gguf.end_of_generation import Ends, ends
from phiquant.targets.gguf.pre_tokenizers import pre_tokenizer_name, splitting_deviations
from phiquant.targets.gguf.white_space import stripping_deviations

Value = str | bool | int | tuple[str, ...] | tuple[int, ...] | tuple[float, ...]

MODELS = {TokenizerKind.BYTE_LEVEL: "gpt2", TokenizerKind.SENTENCEPIECE: "llama"}

TOKEN_TYPES = {
    PieceKind.NORMAL: 1,
    PieceKind.UNKNOWN: 2,
    PieceKind.CONTROL: 3,
    PieceKind.USER_DEFINED: 4,
    PieceKind.UNUSED: 5,
    PieceKind.BYTE: 6,
}

UNKNOWN_SYNTAX = re.compile(r"\{[%{#]\+|\+[%#]\}|\{%[-+]?\s*raw")
"""What llama.cpp's template engine refuses, with the whole model: signs that keep white space,
and raw text. Any other template is stored as it is; that engine trims as transformers does."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a GGUF file says about the tokenizer."""

    entries: tuple[tuple[str, Value], ...]
    """Key and value, in the order to write. Integers are uint32, in arrays int32; floats are
    float32."""
    deviations: tuple[str, ...]
    """In a sentence each, where llama.cpp cannot do what the tokenizer does."""


def vocabulary_of(checkpoint: Checkpoint) -> Vocabulary:
    """`vocabulary` of a checkpoint, for `Checkpoint.once`."""
    return vocabulary(checkpoint.tokenizer, checkpoint.architecture.vocabulary_size)


def vocabulary(tokenizer: Tokenizer, vocabulary_size: int) -> Vocabulary:
    """The pairs for a model with `vocabulary_size` embedding rows, padded to that size.

    Raises TokenizerError for a tokenizer that llama.cpp would read wrongly or refuse.
    """
    definition, special = tokenizer.definition, tokenizer.special
    _check(definition, vocabulary_size)
    stops = ends(definition.pieces, special)
    texts = _texts(definition, vocabulary_size)
    kinds = [TOKEN_TYPES[kind] for kind in definition.piece_kinds]
    kinds += [TOKEN_TYPES[PieceKind.UNUSED]] * (vocabulary_size - len(kinds))
    entries: list[tuple[str, Value]] = [("model", MODELS[definition.kind])]
    if definition.kind is TokenizerKind.BYTE_LEVEL:
        entries.append(("pre", pre_tokenizer_name(tokenizer)))
    else:
        entries.append(("pre", "default"))
    entries += [("tokens", texts), ("token_type", tuple(kinds))]
    if definition.kind is TokenizerKind.BYTE_LEVEL:
        entries.append(("merges", tuple(f"{left} {right}" for left, right in definition.merges)))
    else:
        padding = vocabulary_size - len(definition.scores)
        lowest = min(definition.scores)
        entries.append(("scores", definition.scores + (lowest,) * padding))
    for key, number in (
        ("bos_token_id", special.bos),
        *stops.keys,
        ("unknown_token_id", special.unk),
        ("padding_token_id", special.pad),
    ):
        if number is not None:
            entries.append((key, number))
    entries += [
        ("add_bos_token", special.add_bos),
        ("add_eos_token", special.add_eos),
        ("add_space_prefix", definition.space_prefix is SpacePrefix.EVERY),
    ]
    return Vocabulary(
        tuple((f"tokenizer.ggml.{key}", value) for key, value in entries)
        + tuple(_chat_templates(tokenizer)),
        tuple(_deviations(tokenizer, stops)),
    )


def _check(definition: Definition, vocabulary_size: int) -> None:
    if len(definition.pieces) > vocabulary_size:
        raise TokenizerError(
            f"the tokenizer has {len(definition.pieces)} ids, the model's vocabulary only "
            f"{vocabulary_size}; use the tokenizer that belongs to the model"
        )
    if definition.normalizer:
        raise TokenizerError(
            f"the tokenizer normalizes text ({', '.join(definition.normalizer)}), which llama.cpp "
            "would not do; use the original tokenizer of the Phi model, which does not"
        )
    if definition.kind is TokenizerKind.BYTE_LEVEL:
        if definition.space_prefix is not SpacePrefix.NEVER:
            raise TokenizerError(
                "the byte-level tokenizer puts a space in front of text (add_prefix_space), which "
                "llama.cpp would not do; set add_prefix_space to false in tokenizer.json"
            )
        return
    present = {
        piece
        for piece, kind in zip(definition.pieces, definition.piece_kinds, strict=True)
        if kind is PieceKind.BYTE
    }
    if len(present) < 256:
        raise TokenizerError(
            f"llama.cpp needs all 256 byte tokens <0x00> to <0xFF> of a SentencePiece vocabulary, "
            f"this one has {len(present)}; use a tokenizer trained with byte fallback"
        )


def _texts(definition: Definition, vocabulary_size: int) -> tuple[str, ...]:
    """Token texts by id; ids without a token are `[PADn]`.

    A user-defined piece is looked for in the raw text, where a space is a space still.
    """
    texts = [
        piece.replace(SPACE, " ")
        if kind is PieceKind.USER_DEFINED and definition.kind is TokenizerKind.SENTENCEPIECE
        else piece
        for piece, kind in zip(definition.pieces, definition.piece_kinds, strict=True)
    ]
    texts += [""] * (vocabulary_size - len(texts))
    padded = tuple(text or f"[PAD{number}]" for number, text in enumerate(texts))
    twice = [text for text, count in Counter(padded).items() if count > 1]
    if twice:
        raise TokenizerError(
            f"two ids would have the same text {twice[0]!r}, which llama.cpp refuses to load; "
            "give one of the added tokens another text"
        )
    return padded


def _chat_templates(tokenizer: Tokenizer) -> Iterator[tuple[str, Value]]:
    templates = tokenizer.special.chat_templates
    others = tuple(name for name, _ in templates if name != DEFAULT)
    if others:
        yield "tokenizer.chat_templates", others
    for name, text in templates:
        key = "tokenizer.chat_template" + ("" if name == DEFAULT else f".{name}")
        yield key, explicit_white_space(text) if UNKNOWN_SYNTAX.search(text) else text


def _deviations(tokenizer: Tokenizer, stops: Ends) -> Iterator[str]:
    definition = tokenizer.definition
    if stops.unasked:
        yield (
            "llama.cpp also stops a generation at "
            f"{_named(definition, stops.unasked)}, which the checkpoint does not name as ends"
        )
    if stops.unreachable:
        yield (
            f"llama.cpp does not stop a generation at {_named(definition, stops.unreachable)}, "
            "because it has room for three ends besides those that it knows by their text"
        )
    yield from splitting_deviations(definition)
    yield from stripping_deviations(tokenizer)
    if definition.space_prefix is SpacePrefix.FIRST:
        yield (
            "the tokenizer puts a space before text at the very beginning only; llama.cpp can do "
            "so everywhere or nowhere, and the file says nowhere, which is right for prompts that "
            "begin with a special token"
        )
    if definition.kind is TokenizerKind.SENTENCEPIECE:
        moved = [token.text for token in definition.added if token.normalized]
        if moved:
            yield (
                f"the tokenizer finds {', '.join(moved)} only where a space goes before, "
                "llama.cpp everywhere"
            )
        yield from _merge_deviations(definition)


def _merge_deviations(definition: Definition) -> Iterator[str]:
    """llama.cpp merges whatever pair makes a piece, best score first; merges are not stored."""
    runs = [made for made, _ in groupby(left + right for left, right in definition.merges)]
    if len(runs) > len(set(runs)):
        yield "llama.cpp merges piece by piece, where the tokenizer interleaves some pieces' merges"
    normal = {
        piece
        for piece, kind in zip(definition.pieces, definition.piece_kinds, strict=True)
        if kind is PieceKind.NORMAL
    }
    pairs = set(definition.merges)
    unlisted = sum(
        (piece[:cut], piece[cut:]) not in pairs
        for piece in normal
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    )
    if unlisted:
        yield (
            f"llama.cpp may merge {unlisted} pairs of pieces that the tokenizer has no merge for"
        )


def _named(definition: Definition, ids: tuple[int, ...]) -> str:
    return ", ".join(f"{definition.pieces[number]} ({number})" for number in ids)
