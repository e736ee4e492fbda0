"""Write a tokenizer of Phi-4-mini's kind and size: GPT-4o's byte-pair ranks, 200,064 slots.

    python tokenizer.py DIRECTORY

Run by the peers' Python, whose environment has the ranks as data of `bpe-openai` (MIT). They are
the genuine ones, so llama.cpp's converter recognises the pre-tokenizer (`gpt-4o`) by the hash that
it takes, and needs no patch. A rank file lists tokens only; Hugging Face's `tokenizer.json` wants
the merges too. The merge that made a token is found by encoding its bytes with the ranks below its
own: what remains are the two parts.

The special tokens stand at Phi-4-mini's ids; the slots between and after them stay empty.
"""

import base64
import gzip
import json
import sys
from importlib import resources
from itertools import pairwise
from pathlib import Path

EXPRESSION = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
SPECIAL = {
    "<|endoftext|>": 199999,
    "<|endofprompt|>": 200018,
    "<|assistant|>": 200019,
    "<|end|>": 200020,
    "<|user|>": 200021,
    "<|system|>": 200022,
    "<|tool|>": 200023,
    "<|/tool|>": 200024,
    "<|tool_call|>": 200025,
    "<|/tool_call|>": 200026,
    "<|tool_response|>": 200027,
    "<|tag|>": 200028,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + "
    "'<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)


def byte_level_alphabet() -> list[str]:
    """The printable character that stands for each byte in GPT-2's byte-level BPE."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def read_ranks() -> dict[bytes, int]:
    """GPT-4o's 199,998 tokens and their ranks, one `base64 rank` a line in the package's data."""
    packed = resources.files("bpe_openai").joinpath("data/o200k_base.tiktoken.gz").read_bytes()
    pairs = (line.split() for line in gzip.decompress(packed).splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def parts_before_last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens whose merge is `token`."""
    parts = [bytes([byte]) for byte in token]
    unknown = len(ranks)
    while len(parts) > 2:
        pairs = [ranks.get(left + right, unknown) for left, right in pairwise(parts)]
        at = pairs.index(min(pairs))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def tokenizer_json(ranks: dict[bytes, int]) -> dict[str, object]:
    alphabet = byte_level_alphabet()

    def spell(token: bytes) -> str:
        return "".join(alphabet[byte] for byte in token)

    in_order = sorted(ranks, key=ranks.__getitem__)
    merges = [
        [spell(part) for part in parts_before_last_merge(token, ranks)]
        for token in in_order
        if len(token) > 1
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    split = {"type": "Split", "pattern": {"Regex": EXPRESSION}, "behavior": "Removed"}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(text) | {"id": at} for text, at in SPECIAL.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split | {"invert": True}, byte_level | {"use_regex": False}],
        },
        "post_processor": byte_level | {"trim_offsets": False, "use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): ranks[token] for token in in_order} | SPECIAL,
            "merges": merges,
        },
    }


def added_token(text: str) -> dict[str, object]:
    return {
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def tokenizer_config() -> dict[str, object]:
    end = "<|endoftext|>"
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(at): added_token(text) for text, at in SPECIAL.items()},
        "bos_token": end,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": end,
        "model_max_length": 131072,
        "pad_token": end,
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": end,
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def main(directory: Path) -> None:
    write_json(directory / "tokenizer.json", tokenizer_json(read_ranks()))
    write_json(directory / "tokenizer_config.json", tokenizer_config())
    end = "<|endoftext|>"
    names = {f"{role}_token": end for role in ("bos", "eos", "pad", "unk")}
    write_json(directory / "special_tokens_map.json", names)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
