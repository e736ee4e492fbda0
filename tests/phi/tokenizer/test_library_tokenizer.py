"""The library's tokenizer, put together from parsed parts, is the one that it reads from text."""

import json

import pytest
import tokenizers

from phiquant.phi.tokenizer.byte_letters import BYTES_BY_LETTER, NO_BYTE, piece_bytes
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from published_tokenizers import write_phi_3_5_mini, write_phi_4_mini
from tiny_tokenizer import write_tiny_tokenizer


def write_tiny(directory):
    write_tiny_tokenizer(directory)
    return 512


LARGEST = pytest.param(write_phi_4_mini, marks=pytest.mark.long)
"""200,000 tokens, which take seconds."""


@pytest.mark.parametrize("write", [write_tiny, write_phi_3_5_mini, LARGEST])
def test_the_parts_make_the_same_tokenizer(write, tmp_path):
    tokenizer = read_tokenizer(tmp_path, write(tmp_path))
    from_text = tokenizers.Tokenizer.from_str(tokenizer.document)
    assert json.loads(tokenizer._encoder._library.to_str()) == json.loads(from_text.to_str())


def test_letters_stand_for_bytes_as_in_the_library():
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    letters = {letter: piece_bytes(letter) for letter in alphabet}
    assert sorted(letters.values()) == [bytes([byte]) for byte in range(256)]
    step = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("Größe\n\t 🙂", "\x00\x7f\xa0\xad"):
        ((piece, _),) = step.pre_tokenize_str(text)
        assert piece_bytes(piece) == text.encode()
    assert piece_bytes(" ") is piece_bytes("a\n") is piece_bytes("你") is None
    assert piece_bytes("") == b""
    assert NO_BYTE not in map(ord, alphabet) and len(BYTES_BY_LETTER) == 136
