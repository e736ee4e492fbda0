"""The tokenizer of a checkpoint: its vocabulary, its rules, its special tokens.

`read_tokenizer` reads `tokenizer.json`, or a SentencePiece `tokenizer.model` where there is none,
and the files around it. Everything is read as data; code that comes with a model is never run.
Encoding is left to the `tokenizers` library, the reference that every target must agree with.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.documents import read_document
from phiquant.phi.tokenizer.sentencepiece_model import as_tokenizer_json, read_sentencepiece
from phiquant.phi.tokenizer.special_tokens import (
    CompanionFiles,
    SpecialTokens,
    special_tokens,
)
from phiquant.phi.tokenizer.tokenizer_json import Definition, TokenizerKind, read_definition

MODEL_OPTIONS = (
    "cache_capacity",
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer."""

    definition: Definition
    special: SpecialTokens
    parsed: Mapping[str, Any] = field(repr=False, compare=False)
    """The whole tokenizer as a parsed tokenizer.json."""

    @property
    def kind(self) -> TokenizerKind:
        """Byte-level or SentencePiece."""
        return self.definition.kind

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return len(self.definition.pieces)

    @property
    def document(self) -> str:
        """The whole tokenizer as the text of a tokenizer.json."""
        return json.dumps(self.parsed, ensure_ascii=False)

    @cached_property
    def _encoder(self) -> tokenizers.Tokenizer:
        try:
            return _encoder(self)
        except Exception as error:  # the library raises nothing more specific
            raise _refusal(error) from error

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: special tokens in the text are recognised, none is added."""
        ids: list[int] = self._encoder.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        text: str = self._encoder.decode(list(ids), skip_special_tokens=False)
        return text


def _refusal(error: Exception) -> TokenizerError:
    words = " ".join(str(error).split())
    return TokenizerError(
        f"the tokenizers library refuses tokenizer.json: {words:.200}; download it again, or "
        "update the library"
    )


def _encoder(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """The library's tokenizer; writing and parsing a vocabulary of 200,000 as text takes a second.

    Every added token is in the vocabulary (`read_tokenizer`), from which it takes its id.
    """
    model = tokenizer.parsed["model"]
    steps = _empty_encoder(tokenizer.parsed)
    encoder = tokenizers.Tokenizer(
        tokenizers.models.BPE(model["vocab"], list(tokenizer.definition.merges), **_options(model))
    )
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(steps, name) is not None:
            setattr(encoder, name, getattr(steps, name))
    for token in tokenizer.parsed.get("added_tokens") or ():
        flags = {name: token[name] for name in TOKEN_FLAGS if name in token}
        encoder.add_tokens([tokenizers.AddedToken(token["content"], **flags)])
    return encoder


def _empty_encoder(document: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """All of the library's tokenizer but its vocabulary; it shows whether the library takes it."""
    model = {**document["model"], "vocab": {}, "merges": []}
    return tokenizers.Tokenizer.from_str(
        json.dumps({**document, "added_tokens": [], "model": model})
    )


def _options(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: model[name] for name in MODEL_OPTIONS if model.get(name) is not None}


def read_tokenizer(directory: Path, vocabulary_size: int) -> Tokenizer:
    """Read the tokenizer in `directory` for a model with `vocabulary_size` embedding rows.

    Raises TokenizerError if files are missing or malformed, if the tokenizer is of a kind that no
    Phi model has, or if it has ids beyond the model's vocabulary.
    """
    files = CompanionFiles.read(directory)
    document, scores = _document(directory, files)
    definition = read_definition(document, vocabulary_size, scores)
    try:
        _empty_encoder(document)
    except Exception as error:  # the library raises nothing more specific
        raise _refusal(error) from error
    special = special_tokens(
        files,
        definition.pieces,
        definition.begins_with,
        adds_bos=scores is not None,
    )
    # The library ignores the ids of added tokens that are not in the vocabulary and numbers them
    # on from its end, which is wrong where ids are left out.
    for token in definition.added:
        document["model"]["vocab"].setdefault(token.text, token.id)
    return Tokenizer(definition, special, document)


def _document(
    directory: Path, files: CompanionFiles
) -> tuple[dict[str, Any], dict[str, float] | None]:
    """The tokenizer.json, read or made, and the scores by piece where a model file has them."""
    model = directory / "tokenizer.model"
    extra = list(files.added())
    if (directory / "tokenizer.json").is_file():
        document = read_document(directory / "tokenizer.json")
        own = document.get("added_tokens") or []
        document["added_tokens"] = [*own, *_not_in(extra, own)]
        return document, None
    if model.is_file():
        pieces = read_sentencepiece(model.read_bytes())
        scores = dict(zip(pieces.pieces, pieces.scores, strict=True))
        return as_tokenizer_json(pieces, extra), scores
    raise TokenizerError(
        f"found neither tokenizer.json nor tokenizer.model in {directory}; download the model's "
        "tokenizer files too"
    )


def _not_in(
    extra: Sequence[dict[str, Any]], own: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Tokens that only the companion files have; transformers adds them when it loads."""
    known = {(token["id"], token["content"]) for token in own}
    return (token for token in extra if (token["id"], token["content"]) not in known)
