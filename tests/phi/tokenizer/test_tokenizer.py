"""Reading tokenizers: what is in the files, what is refused, and how."""

import json
import struct
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer as Library

from parity_corpus import PASSAGES, random_texts
from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.sentencepiece_model import read_sentencepiece
from phiquant.phi.tokenizer.splitting import SpacePrefix
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.phi.tokenizer.tokenizer_json import PieceKind, TokenizerKind
from tiny_tokenizer import (
    CHAT_TEMPLATE,
    GPT_4O_EXPRESSION,
    PADDING,
    added_token,
    write_tiny_tokenizer,
)

SIZE = 512

KINDS = ("bpe", "sentencepiece")


def edit(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    document.update(changes)
    text = json.dumps({key: value for key, value in document.items() if value is not ...})
    path.write_text(text, encoding="utf-8")


def edited_model(directory: Path, **changes: Any) -> None:
    path = directory / "tokenizer.json"
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    edit(path, model=model | changes)


@pytest.fixture(params=KINDS)
def directory(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    write_tiny_tokenizer(tmp_path, SIZE, request.param)
    return tmp_path


@pytest.fixture
def byte_level(tmp_path: Path) -> Path:
    write_tiny_tokenizer(tmp_path, SIZE, "bpe")
    return tmp_path


@pytest.fixture
def sentence_piece(tmp_path: Path) -> Path:
    write_tiny_tokenizer(tmp_path, SIZE, "sentencepiece")
    return tmp_path


def test_pieces_are_indexed_by_id_as_the_library_has_them(directory: Path) -> None:
    tokenizer = read_tokenizer(directory, SIZE)
    library = Library.from_file(str(directory / "tokenizer.json"))
    assert tokenizer.size == SIZE - PADDING == library.get_vocab_size()
    for number, piece in enumerate(tokenizer.definition.pieces):
        assert library.token_to_id(piece) == number


def test_byte_level_description(byte_level: Path) -> None:
    definition = read_tokenizer(byte_level, SIZE).definition
    assert definition.kind is TokenizerKind.BYTE_LEVEL
    assert definition.splitting == (GPT_4O_EXPRESSION,)
    assert definition.space_prefix is SpacePrefix.NEVER
    assert definition.scores == ()
    assert definition.normalizer == ()
    assert definition.piece_kinds.count(PieceKind.CONTROL) == 6


def test_sentencepiece_description(sentence_piece: Path) -> None:
    definition = read_tokenizer(sentence_piece, SIZE).definition
    assert definition.kind is TokenizerKind.SENTENCEPIECE
    assert definition.splitting == ()
    assert definition.space_prefix is SpacePrefix.EVERY
    assert definition.normalizer == ()
    assert definition.piece_kinds.count(PieceKind.BYTE) == 256
    assert definition.piece_kinds[0] is PieceKind.UNKNOWN
    assert definition.piece_kinds[2] is PieceKind.USER_DEFINED
    by_text = {token.text: token for token in definition.added}
    assert by_text["<|end|>"].rstrip
    assert not by_text["<|endoftext|>"].rstrip
    # Scores fall in the order in which the merges make the pieces.
    made = list(dict.fromkeys(left + right for left, right in definition.merges))
    scores = [definition.scores[definition.pieces.index(piece)] for piece in made]
    assert scores == [-float(rank) for rank in range(len(made))]
    others = set(definition.scores) - set(scores)
    assert len(others) == 1 and max(others) < min(scores)


def test_roles_and_ends(directory: Path) -> None:
    special = read_tokenizer(directory, SIZE).special
    pieces = read_tokenizer(directory, SIZE).definition.pieces
    assert special.eos == pieces.index("<|endoftext|>")
    assert special.ends == tuple(sorted((pieces.index("<|end|>"), special.eos)))
    assert special.add_bos is False
    assert special.chat_templates == (("default", CHAT_TEMPLATE),)


def test_ends_are_united_from_every_file(byte_level: Path) -> None:
    edit(byte_level / "generation_config.json", eos_token_id=[5])
    edit(byte_level / "config.json", eos_token_id=7)
    tokenizer = read_tokenizer(byte_level, SIZE)
    pieces = tokenizer.definition.pieces
    # <|end|> now stands in the chat template only, <|endoftext|> in tokenizer_config.json only.
    expected = {5, 7, pieces.index("<|end|>"), pieces.index("<|endoftext|>")}
    assert set(tokenizer.special.ends) == expected


def test_an_end_of_turn_that_the_template_does_not_write_is_no_end(byte_level: Path) -> None:
    edit(byte_level / "tokenizer_config.json", chat_template="{{ messages }}")
    edit(byte_level / "generation_config.json", eos_token_id=None)
    tokenizer = read_tokenizer(byte_level, SIZE)
    assert tokenizer.special.ends == (tokenizer.definition.pieces.index("<|endoftext|>"),)


def test_roles_fall_back_on_the_map_and_then_on_ids(byte_level: Path) -> None:
    edit(byte_level / "tokenizer_config.json", bos_token=..., eos_token=..., pad_token=...)
    special_map = {"eos_token": {"content": "<|end|>", "lstrip": False}}
    (byte_level / "special_tokens_map.json").write_text(json.dumps(special_map))
    edit(byte_level / "generation_config.json", bos_token_id=11, pad_token_id=None)
    edit(byte_level / "config.json", bos_token_id=12, pad_token_id=13)
    special = read_tokenizer(byte_level, SIZE).special
    pieces = read_tokenizer(byte_level, SIZE).definition.pieces
    assert (special.bos, special.pad) == (11, 13)
    assert special.eos == pieces.index("<|end|>")


@pytest.mark.parametrize(
    ("flag", "processor", "expected"),
    [(None, False, False), (None, True, True), (False, True, False), (True, False, True)],
)
def test_adding_bos(byte_level: Path, flag: bool | None, processor: bool, expected: bool) -> None:
    edit(byte_level / "tokenizer_config.json", add_bos_token=flag)
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {},
    }
    edit(byte_level / "tokenizer.json", post_processor=template if processor else None)
    assert read_tokenizer(byte_level, SIZE).special.add_bos is expected


def test_encoding_recognises_special_tokens_and_adds_none(directory: Path) -> None:
    tokenizer = read_tokenizer(directory, SIZE)
    pieces = tokenizer.definition.pieces
    ids = tokenizer.encode("<|user|>hi<|end|>")
    assert ids[0] == pieces.index("<|user|>")
    assert ids[-1] == pieces.index("<|end|>")
    assert tokenizer.decode(ids).replace(" ", "") == "<|user|>hi<|end|>"


def test_tokens_of_the_companion_files_are_added(byte_level: Path) -> None:
    edit(byte_level / "added_tokens.json", **{"<|extra|>": SIZE - 1})
    tokenizer = read_tokenizer(byte_level, SIZE)
    assert tokenizer.encode("<|extra|>") == [SIZE - 1]
    assert tokenizer.definition.piece_kinds[SIZE - 1] is PieceKind.CONTROL
    assert tokenizer.definition.piece_kinds[SIZE - 2] is PieceKind.UNUSED
    assert tokenizer.definition.pieces[SIZE - 2] == ""


# The SentencePiece model file, against Google's own library


@pytest.fixture(scope="module")
def model_file() -> bytes:
    return files("mistral_common").joinpath("data/tokenizer.model.v1").read_bytes()


def test_the_model_file_is_read_as_sentencepiece_reads_it(model_file: bytes) -> None:
    reference = sentencepiece.SentencePieceProcessor()
    reference.LoadFromSerializedProto(model_file)
    model = read_sentencepiece(model_file)
    numbers = range(reference.GetPieceSize())
    assert model.pieces == tuple(map(reference.IdToPiece, numbers))
    assert model.scores == tuple(map(reference.GetScore, numbers))
    kinds = {1: "normal", 2: "unknown", 3: "control", 5: "unused", 6: "byte"}
    for number in numbers:
        expected = "normal"
        for kind in ("Unknown", "Control", "Unused", "Byte"):
            if getattr(reference, f"Is{kind}")(number):
                expected = kind.lower()
        assert kinds[model.types[number]] == expected
    assert model.add_dummy_prefix


def test_the_model_file_encodes_as_sentencepiece_does(tmp_path: Path, model_file: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(model_file)
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = read_tokenizer(tmp_path, 32000)
    assert tokenizer.special.add_bos
    reference = sentencepiece.SentencePieceProcessor()
    reference.LoadFromSerializedProto(model_file)
    for text in (*PASSAGES, *random_texts(200, seed=5)):
        if not any(piece in text for piece in ("<s>", "</s>", "<unk>")):
            assert tokenizer.encode(text) == reference.Encode(text), repr(text)


@pytest.mark.parametrize("length", [0, 1, 10, 1000, -1])
def test_a_truncated_model_file_is_refused(model_file: bytes, length: int) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        read_sentencepiece(model_file[:length])


def test_unigram_and_normalizing_models_are_refused(model_file: bytes) -> None:
    piece = b"\x0a\x07\x0a\x01a\x15" + struct.pack("<f", -1.0)[:4]
    piece = b"\x0a" + bytes([len(piece) - 2]) + piece[2:]
    with pytest.raises(TokenizerError, match="Unigram"):
        read_sentencepiece(piece)
    bpe = b"\x12\x02\x18\x02"
    with pytest.raises(TokenizerError, match="normalizes"):
        read_sentencepiece(piece + bpe)
    plain = b"\x1a\x02\x20\x00"
    assert read_sentencepiece(piece + bpe + plain).pieces == ("a",)


# What is refused


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read_tokenizer(tmp_path, SIZE)


def test_more_ids_than_the_model_has(directory: Path) -> None:
    with pytest.raises(TokenizerError, match=f"up to {SIZE - PADDING - 1}.*only 500"):
        read_tokenizer(directory, 500)


def test_broken_json(directory: Path) -> None:
    (directory / "tokenizer.json").write_text('{"model": ', encoding="utf-8")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        read_tokenizer(directory, SIZE)


@pytest.mark.parametrize(
    "document",
    [{}, {"model": []}, {"model": {"byte_fallback": True, "vocab": 3, "merges": []}}],
)
def test_malformed_json(directory: Path, document: dict[str, Any]) -> None:
    (directory / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(TokenizerError, match="malformed"):
        read_tokenizer(directory, SIZE)


@pytest.mark.parametrize("kind", ["WordPiece", "Unigram", "WordLevel"])
def test_other_kinds_of_model(byte_level: Path, kind: str) -> None:
    edited_model(byte_level, type=kind)
    with pytest.raises(TokenizerError, match=kind):
        read_tokenizer(byte_level, SIZE)


def test_neither_byte_level_nor_byte_fallback(sentence_piece: Path) -> None:
    edited_model(sentence_piece, byte_fallback=False)
    with pytest.raises(TokenizerError, match="byte fallback"):
        read_tokenizer(sentence_piece, SIZE)


def test_an_id_with_two_tokens(byte_level: Path) -> None:
    edit(byte_level / "added_tokens.json", **{"<|extra|>": 3})
    with pytest.raises(TokenizerError, match=r"the id 3 to two tokens"):
        read_tokenizer(byte_level, SIZE)


def test_a_token_with_two_ids(byte_level: Path) -> None:
    edit(byte_level / "tokenizer.json", added_tokens=[added_token(SIZE - 1, "a")])
    with pytest.raises(TokenizerError, match=r"the token 'a' two ids"):
        read_tokenizer(byte_level, SIZE)


def test_a_role_without_a_token(byte_level: Path) -> None:
    edit(byte_level / "tokenizer_config.json", eos_token="<|nowhere|>")
    with pytest.raises(TokenizerError, match=r"<\|nowhere\|>.*eos_token"):
        read_tokenizer(byte_level, SIZE)


@pytest.mark.parametrize("number", [SIZE - 1, SIZE, 32000, -1])
def test_an_end_without_a_token(byte_level: Path, number: int) -> None:
    edit(byte_level / "config.json", eos_token_id=[number])
    with pytest.raises(TokenizerError, match=f"ends a text at {number}"):
        read_tokenizer(byte_level, SIZE)


def test_adding_a_bos_that_there_is_not(byte_level: Path) -> None:
    edit(byte_level / "tokenizer_config.json", bos_token=None, add_bos_token=True)
    edit(byte_level / "generation_config.json", bos_token_id=None)
    (byte_level / "special_tokens_map.json").unlink()
    with pytest.raises(TokenizerError, match="add the bos token"):
        read_tokenizer(byte_level, SIZE)


def test_nothing_from_the_model_is_run(byte_level: Path) -> None:
    """A template that would raise if rendered is carried as text."""
    (byte_level / "chat_template.jinja").write_text("{{ 1 / 0 }}", encoding="utf-8")
    assert read_tokenizer(byte_level, SIZE).special.chat_template == "{{ 1 / 0 }}"


def test_what_the_library_refuses(byte_level: Path) -> None:
    steps = {"type": "ByteLevel", "add_prefix_space": False}
    edit(byte_level / "tokenizer.json", pre_tokenizer=steps)
    with pytest.raises(TokenizerError, match="library refuses"):
        read_tokenizer(byte_level, SIZE).encode("text")
