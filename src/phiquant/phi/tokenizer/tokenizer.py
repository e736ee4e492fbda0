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

from phiquant.errors import TokenizerError
from phiquant.host import foreign
from phiquant.phi.tokenizer.documents import read_document
from phiquant.phi.tokenizer.encoder import Encoder, check_library_takes
from phiquant.phi.tokenizer.sentencepiece_model import as_tokenizer_json, read_sentencepiece
from phiquant.phi.tokenizer.special_tokens import (
    CompanionFiles,
    SpecialTokens,
    special_tokens,
)
from phiquant.phi.tokenizer.tokenizer_json import Definition, TokenizerKind, read_definition


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
    def _encoder(self) -> Encoder:
        return Encoder(self.parsed, self.definition.merges)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: special tokens in the text are recognised, none is added."""
        return self._encoder.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        return self._encoder.decode(ids)


def read_tokenizer(directory: Path, vocabulary_size: int, beside: Path | None = None) -> Tokenizer:
    """Read the tokenizer in `directory` for a model with `vocabulary_size` embedding rows, whose
    configuration lies in the directory `beside` if it is another.

    Raises TokenizerError if files are missing or malformed, if the tokenizer is of a kind that no
    Phi model has, or if it has ids beyond the model's vocabulary.
    """
    files = CompanionFiles.read(directory, beside)
    document, scores = _document(directory, files)
    definition = read_definition(document, vocabulary_size, scores)
    check_library_takes(document)
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
    if foreign.present(directory / "tokenizer.json"):
        document = read_document(directory / "tokenizer.json")
        own = document.get("added_tokens") or []
        document["added_tokens"] = [*own, *_not_in(extra, own)]
        return document, None
    if foreign.present(model):
        pieces = read_sentencepiece(foreign.read_bytes(model, foreign.TOKENIZER_MODEL, directory))
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
