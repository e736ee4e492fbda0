"""Small but genuine tokenizer directories, trained on the fly, for tests that need a whole model.

`write_tiny_tokenizer(directory, vocabulary_size=512, kind="bpe")` leaves what a Phi checkpoint
holds besides its weights and `config.json`: `tokenizer.json`, `tokenizer_config.json` with a chat
template, `special_tokens_map.json` and `generation_config.json`.

- `bpe`: byte-level BPE with the pre-tokenizer of Phi-4-mini (GPT-4o's expression).
- `sentencepiece`: character BPE with byte fallback as Phi-3 has it (`▁` for spaces, special
  tokens that swallow the white space after them).

`as_model_file(directory)` then replaces its `tokenizer.json` by the SentencePiece model that it
was converted from, a `tokenizer.model`.

The same arguments give the same bytes. The last `PADDING` ids of `vocabulary_size` stay without a
token, as in the published models, whose embedding is larger than their vocabulary.
"""

import json
import struct
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

Kind = Literal["bpe", "sentencepiece"]

PADDING = 3

GPT_4O_EXPRESSION = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+"
    r"[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + "
    "'<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on the warm stones. ",
    "There is no royal road to geometry; there are only proofs, and the patience to read them. ",
    "In the beginning the weights were large, and the memory of the machine was small. ",
    "def rounding(values, scale):\n    return [round(value / scale) for value in values]\n",
    "for index in range(100):\n\tprint(index, index * index)\n\n",
    "It's what they'd said: we're here, you'll see, I've been there, and that's all of it. ",
    "1 and 12 and 123 and 1234 make 1370; 3.14159 is near pi, 2.71828 is near e. ",
    "Заметим, что это предложение написано по-русски; eine Größe, naïve café, señor. ",
    "量子化された重みは小さい。 これは文です。 ",
)


@dataclass(frozen=True, slots=True)
class TinyTokenizer:
    """What was written: the ids that a test or a `config.json` needs."""

    bos: int
    eos: int
    """The end of a document, `<|endoftext|>`."""
    end: int
    """The end of a turn, `<|end|>`."""
    tokens: int
    """How many ids have a token; the model's vocabulary may be larger."""


def write_tiny_tokenizer(
    directory: Path, vocabulary_size: int = 512, kind: Kind = "bpe"
) -> TinyTokenizer:
    """Write a tokenizer directory for a model with `vocabulary_size` ids (at least 384)."""
    if vocabulary_size < 384:
        raise ValueError(f"vocabulary_size must be at least 384, got {vocabulary_size}")
    directory.mkdir(parents=True, exist_ok=True)
    build = _byte_level if kind == "bpe" else _sentencepiece
    tokenizer, config = build(vocabulary_size - PADDING)
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tiny = TinyTokenizer(
        bos=ids[config["bos_token"]],
        eos=ids[config["eos_token"]],
        end=ids["<|end|>"],
        tokens=vocabulary_size - PADDING,
    )
    config["added_tokens_decoder"] = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in tokenizer["added_tokens"]
    }
    config["chat_template"] = CHAT_TEMPLATE
    config["model_max_length"] = 4096
    roles = ("bos_token", "eos_token", "unk_token", "pad_token")
    special = {role: config[role] for role in roles if role in config}
    generation = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    _dump(directory / "tokenizer.json", tokenizer)
    _dump(directory / "tokenizer_config.json", config)
    _dump(directory / "special_tokens_map.json", special)
    _dump(directory / "generation_config.json", generation)
    return tiny


def as_model_file(directory: Path) -> None:
    """Replace the tokenizer.json of a `sentencepiece` tokenizer by a `tokenizer.model`.

    The added tokens stay in tokenizer_config.json (`added_tokens_decoder`).
    """
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    added = {token["content"] for token in document["added_tokens"]}
    special = {"<unk>": 2, "<s>": 3, "</s>": 3}
    data = b""
    for rank, piece in enumerate(document["model"]["vocab"]):
        if piece in added and piece not in special:
            continue
        kind = 6 if piece.startswith("<0x") else special.get(piece, 1)
        score = -float(rank) if kind == 1 else 0.0
        message = _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score)
        data += _field(1, message + bytes([3 << 3, kind]))
    trainer = bytes([3 << 3, 2]) + b"\x98\x02\x01"  # BPE, with byte fallback (field 35)
    normalizer = bytes([3 << 3, 1, 4 << 3, 0])  # a space in front; spaces are kept
    data += _field(2, trainer) + _field(3, normalizer)
    (directory / "tokenizer.model").write_bytes(data)
    path.unlink()


def _field(number: int, content: bytes) -> bytes:
    """A protocol buffer's field of bytes; all here are shorter than 128."""
    return bytes([number << 3 | 2, len(content)]) + content


def added_token(
    token_id: int, content: str, *, rstrip: bool = False, special: bool = True
) -> dict[str, Any]:
    """One entry of tokenizer.json's `added_tokens`."""
    return {
        "id": token_id,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": rstrip,
        "normalized": False,
        "special": special,
    }


def _byte_level(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    specials = ["<|endoftext|>", "<|endofprompt|>", "<|assistant|>", "<|end|>", "<|user|>"]
    specials += ["<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    # Merges stay within characters outside of ASCII, so that every runtime's approximation of the
    # expression gives the same tokens.
    alone = pre_tokenizers.Split(Regex(r"[^\x00-\x7f]"), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([alone, level])
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    vocabulary, merges = _filled(tokenizer, size - len(specials))
    written = byte_level_json(
        vocabulary,
        merges,
        [added_token(len(vocabulary) + at, text) for at, text in enumerate(specials)],
        GPT_4O_EXPRESSION,
    )
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "tokenizer_class": "GPT2Tokenizer",
    }
    return written, config


def byte_level_json(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[dict[str, Any]],
    expression: str,
) -> dict[str, Any]:
    """A tokenizer.json of the byte-level kind that splits text by `expression`."""
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": expression},
        "behavior": "Removed",
        "invert": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": _bpe_model(vocabulary, merges, None, byte_fallback=False),
    }


def _sentencepiece(size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    specials = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    head = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    room = size - len(head) - len(specials)
    texts = [text.replace("\n", " ") for text in CORPUS]
    # Ties are broken by code point: the trainer's own `limit_alphabet` breaks them by chance.
    counts = Counter("".join(texts))
    alphabet = sorted(counts, key=lambda character: (-counts[character], character))
    kept = set(alphabet[: room // 2])
    trainer = trainers.BpeTrainer(vocab_size=room, special_tokens=[], show_progress=False)
    tokenizer.train_from_iterator(
        ["".join(letter if letter in kept else " " for letter in text) for text in texts], trainer
    )
    learned, merges = _filled(tokenizer, room)
    # SentencePiece numbers the merged pieces first, best first, and the characters last.
    merged = [left + right for left, right in merges]
    pieces = head + merged + [piece for piece in learned if len(piece) == 1]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    # SentencePiece joins any two pieces that make a piece, so every split is a merge.
    merges = [
        (piece[:cut], piece[cut:])
        for piece in merged
        for cut in range(1, len(piece))
        if piece[:cut] in learned and piece[cut:] in learned
    ]
    added = [added_token(0, "<unk>"), added_token(1, "<s>")]
    added.append(added_token(2, "</s>", rstrip=True, special=False))
    for index, text in enumerate(specials, len(pieces)):
        added.append(added_token(index, text, rstrip=text != "<|endoftext|>"))
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "unk_token": "<unk>",
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
    }
    return sentencepiece_json(vocabulary, merges, added), config


def sentencepiece_json(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """A tokenizer.json of the SentencePiece kind, as Phi-3's."""
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added),
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip],
        },
        "model": _bpe_model(vocabulary, merges, "<unk>", byte_fallback=True),
    }


def _bpe_model(
    vocabulary: dict[str, int],
    merges: Sequence[tuple[str, str]],
    unknown: str | None,
    *,
    byte_fallback: bool,
) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": [list(pair) for pair in merges],
    }


def _filled(tokenizer: Tokenizer, size: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The trained vocabulary in id order and its merges, extended to exactly `size` pieces.

    The corpus has merges for a few hundred pieces; a test that asks for more gets strings of
    rare letters, so that every id still has a genuine piece.
    """
    model = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(model["vocab"].items(), key=lambda item: item[1])
    vocabulary = {piece: index for index, (piece, _) in enumerate(by_id)}
    merges = [(left, right) for left, right in model["merges"]]
    letters = [letter for letter in "bgkqvwxyz" if letter in vocabulary]
    queue = deque(letters)
    while len(vocabulary) < size:
        head = queue.popleft()
        for letter in letters:
            if head + letter not in vocabulary and len(vocabulary) < size:
                vocabulary[head + letter] = len(vocabulary)
                merges.append((head, letter))
                queue.append(head + letter)
    return vocabulary, merges


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
