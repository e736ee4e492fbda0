"""What a tokenizer.json may ask for, and what becomes of a panic in the library."""

import json

import pytest
import tokenizers

from phiquant.errors import TokenizerError
from phiquant.phi.tokenizer.encoder import Encoder
from phiquant.phi.tokenizer.expressions import KNOWN
from phiquant.phi.tokenizer.limits import (
    LONGEST_PIECE,
    MOST_ADDED,
    check_pieces,
    check_steps,
    counted,
)
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from tiny_tokenizer import write_tiny_tokenizer

HOSTILE = (
    "a" * 40,
    " " * 3000 + "x",
    "A" * 3000,
    "ab " * 1000,
    "\r\n" * 2000,
    "'s" * 1000,
    "1" * 3000,
)


@pytest.mark.parametrize("expression", sorted(KNOWN))
def test_no_known_expression_gives_up_on_a_text(expression):
    step = tokenizers.pre_tokenizers.Split(tokenizers.Regex(expression), "isolated")
    for text in HOSTILE:
        parts = step.pre_tokenize_str(text)
        assert "".join(part for part, _ in parts) == text


def test_a_panic_of_the_library_is_an_error_like_another(tmp_path):
    write_tiny_tokenizer(tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    step = document["pre_tokenizer"]["pretokenizers"][0]
    step["pattern"]["Regex"] = "(x+x+)+y"  # never read from a file: see `limits`
    encoder = Encoder(document, [tuple(pair) for pair in document["model"]["merges"]])
    with pytest.raises(TokenizerError, match=r"refuses a text: .*retry-limit"):
        encoder.encode("x" * 40)


def test_the_limits_themselves_are_taken():
    check_pieces(["a" * LONGEST_PIECE], map(str, range(MOST_ADDED)))
    assert list(counted([("a", "b")] * 3, most=3)) == [("a", "b")] * 3
    with pytest.raises(TokenizerError, match="more than 2 merges"):
        list(counted([("a", "b")] * 3, most=2))


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        {"type": "Replace", "pattern": {"String": "ab"}, "content": ""},
        {"type": "Prepend", "prepend": "▁"},
        {"type": "NFC"},
    ],
)
def test_steps_that_do_not_grow(step, tmp_path):
    write_tiny_tokenizer(tmp_path, kind="sentencepiece")
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8")) | {"normalizer": step}
    check_steps(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    read_tokenizer(tmp_path, 512).encode("a text")
