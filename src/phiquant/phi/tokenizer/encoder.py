"""The `tokenizers` library's own tokenizer, made from a parsed tokenizer.json.

What the library raises for a file or a text that it cannot take, a panic of its Rust code among
it, is a TokenizerError here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tokenizers

from phiquant.errors import TokenizerError

MODEL_OPTIONS = (
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)
TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
FILE = "tokenizer.json: {}; download it again, or update the library"
TEXT = "a text: {}; is it a text that people write? Give another"
PANIC = "PanicException"
"""The type of a panic. The library has no name for it, and it is no `Exception`."""


class Encoder:
    """Texts to ids, and back."""

    def __init__(self, document: Mapping[str, Any], merges: Sequence[tuple[str, str]]) -> None:
        """`document` is a parsed tokenizer.json; every added token is in its vocabulary, from which
        the library takes its id. Raises TokenizerError.
        """
        with _refusals():
            self._library = _library(document, merges)

    def encode(self, text: str) -> list[int]:
        """The ids of `text`: special tokens in the text are recognised, none is added."""
        with _refusals(TEXT):
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens included."""
        with _refusals(TEXT):
            text: str = self._library.decode(list(ids), skip_special_tokens=False)
        return text


def check_library_takes(document: Mapping[str, Any]) -> None:
    """Raise TokenizerError for what the library refuses, whatever the vocabulary."""
    with _refusals():
        _without_vocabulary(document)


@contextmanager
def _refusals(what: str = FILE) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        words = " ".join(str(error).split())
        told = what.format(f"{words:.200}")
        raise TokenizerError(f"the tokenizers library refuses {told}") from error


def _library(
    document: Mapping[str, Any], merges: Sequence[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """The parts one by one: to write and parse a vocabulary of 200,000 as text takes a second."""
    model = document["model"]
    steps = _without_vocabulary(document)
    options = {name: model[name] for name in MODEL_OPTIONS if model.get(name) is not None}
    library = tokenizers.Tokenizer(tokenizers.models.BPE(model["vocab"], list(merges), **options))
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        if getattr(steps, name) is not None:
            setattr(library, name, getattr(steps, name))
    # All at once: the library sorts them anew each time.
    library.add_tokens(
        [
            tokenizers.AddedToken(
                token["content"], **{name: token[name] for name in TOKEN_FLAGS if name in token}
            )
            for token in document.get("added_tokens") or ()
        ]
    )
    return library


def _without_vocabulary(document: Mapping[str, Any]) -> tokenizers.Tokenizer:
    model = {**document["model"], "vocab": {}, "merges": []}
    model.pop("cache_capacity", None)  # memory that is taken at once
    return tokenizers.Tokenizer.from_str(
        json.dumps({**document, "added_tokens": [], "model": model})
    )
