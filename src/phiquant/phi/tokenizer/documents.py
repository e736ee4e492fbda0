"""The JSON files around a tokenizer, and what their fields may hold.

Files are by another hand. What is used of them, here or by the runtime that gets a copy, is checked
when it is read, so that a field of the wrong kind is one sentence, and nothing later meets it.
Null means, where the format allows it, that a field is not there. Other fields are not looked at.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phiquant.errors import TokenizerError

LARGEST = 2**31
"""Whole numbers are below this in the runtimes."""
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field may hold: in words, and as a test of any JSON value but null."""

    words: str
    holds: Callable[[Any], bool]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_count(value: object) -> bool:
    """Whether a JSON value is a whole number that runtimes can hold, an id among them."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST


def is_token(value: object) -> bool:
    """Whether a JSON value is a token as an object: its text as `content`, and flags."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("content"), str)
        and all(isinstance(value[flag], bool) for flag in FLAGS if flag in value)
    )


def _is_text_or_token(value: object) -> bool:
    return isinstance(value, str) or is_token(value)


def _are_tokens(value: object) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, list) and all(map(_is_text_or_token, value))


def _are_added_tokens(value: object) -> bool:
    return isinstance(value, list) and all(
        is_token(token) and is_count(token.get("id")) for token in value
    )


def _are_tokens_by_id(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        key.isdecimal() and is_token(token) for key, token in value.items()
    )


def _are_ids(value: object) -> bool:
    return all(map(is_count, value)) if isinstance(value, list) else is_count(value)


FLAG = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))
NUMBER = Kind("a number", _is_number)
COUNT = Kind("a whole number", is_count)
IDS = Kind("an id, or a list of ids", _are_ids)
TOKEN = Kind("a text, or an object with a text as its content", _is_text_or_token)
TOKENS = Kind("a list of tokens, or an object of tokens", _are_tokens)
TOKENS_BY_ID = Kind("an object of tokens by id", _are_tokens_by_id)
ADDED_TOKENS = Kind("a list of tokens with their ids", _are_added_tokens)

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""The roles that a tokenizer's own files may name, each as `<role>_token`."""

ROLE_TOKENS = {f"{role}_token": TOKEN for role in ROLES} | {
    "additional_special_tokens": TOKENS,
    "extra_special_tokens": TOKENS,
}
ROLE_IDS = {f"{role}_token_id": IDS for role in ("bos", "eos", "pad")}

FIELDS: Mapping[str, Mapping[str, Kind]] = {
    "tokenizer.json": {"added_tokens": ADDED_TOKENS},
    "tokenizer_config.json": {
        **ROLE_TOKENS,
        "add_bos_token": FLAG,
        "add_eos_token": FLAG,
        "add_prefix_space": FLAG,
        "added_tokens_decoder": TOKENS_BY_ID,
        "clean_up_tokenization_spaces": FLAG,
        "legacy": FLAG,
        "model_max_length": NUMBER,
        "padding_side": TEXT,
        "spaces_between_special_tokens": FLAG,
        "tokenizer_class": TEXT,
        "truncation_side": TEXT,
    },
    "special_tokens_map.json": ROLE_TOKENS,
    "config.json": ROLE_IDS,
    "generation_config.json": {
        **ROLE_IDS,
        "diversity_penalty": NUMBER,
        "do_sample": FLAG,
        "length_penalty": NUMBER,
        "max_length": COUNT,
        "max_new_tokens": COUNT,
        "min_length": COUNT,
        "min_new_tokens": COUNT,
        "no_repeat_ngram_size": COUNT,
        "num_beams": COUNT,
        "num_return_sequences": COUNT,
        "repetition_penalty": NUMBER,
        "temperature": NUMBER,
        "top_k": COUNT,
        "top_p": NUMBER,
    },
}
"""By file: the fields that are used."""

EVERY_FIELD = {"added_tokens.json": Kind("an id", is_count)}
"""Files whose fields are all of a kind."""
NEVER_NULL = ("tokenizer.json", "added_tokens.json")


def read_document(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty if there is no such file.

    Raises TokenizerError for what is no JSON object, and for a field of the wrong kind.
    """
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(
            f"{path.name} is not valid JSON ({error}); download it again"
        ) from error
    if not isinstance(document, dict):
        raise TokenizerError(f"{path.name} should hold a JSON object; download it again")
    _check_fields(path.name, document)
    return document


def _check_fields(file: str, document: Mapping[str, Any]) -> None:
    every = EVERY_FIELD.get(file)
    kinds = FIELDS.get(file, {}) if every is None else dict.fromkeys(document, every)
    for field, kind in kinds.items():
        if field not in document or (document[field] is None and file not in NEVER_NULL):
            continue
        if not kind.holds(document[field]):
            raise TokenizerError(
                f"{field[:40]} in {file} should be {kind.words}, found "
                f"{_shown(document[field])}; correct it, or download the file again"
            )


def _shown(value: object) -> str:
    """A value in a sentence: it may be long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"
