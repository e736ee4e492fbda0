"""The shipped mixture and a user's own file, cut for real and for tiny vocabularies."""

import json
import re
from hashlib import sha256
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import phiquant.calibration.text as module
from phiquant.calibration.text import MIXTURE, read_sample, shipped_sample
from phiquant.errors import InputError
from phiquant.evaluation.text import shipped_text
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from published_tokenizers import write_phi_3_5_mini, write_phi_4, write_phi_4_mini
from tiny_tokenizer import write_tiny_tokenizer

TEXTS = resources.files("phiquant.calibration") / "texts"
HELD_OUT = Path(__file__).parents[2] / "benchmarks" / "texts"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny_tokenizer(directory)
    return read_tokenizer(directory, 512)


@pytest.fixture
def with_bos(tmp_path):
    write_tiny_tokenizer(tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"add_bos_token": True}), encoding="utf-8")
    return read_tokenizer(tmp_path / "model", 512)


def recorded(readme):
    """The bytes and the hash of each file in a table of texts."""
    rows = re.findall(r"^\| `(\S+)` \|(?:[^|]*\|)?? (\d+) \| `([0-9a-f]{64})` \|", readme, re.M)
    return {name: (int(size), digest) for name, size, digest in rows}


def eights(text):
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 8]) for at in range(len(words) - 7)}


@pytest.mark.parametrize("folder", [TEXTS, HELD_OUT], ids=["calibration", "held out"])
def test_the_texts_are_those_recorded(folder):
    table = recorded((folder / "README.md").read_text(encoding="utf-8"))
    names = {entry.name for entry in folder.iterdir() if entry.name != "README.md"}
    assert set(table) == names
    for name, (size, digest) in table.items():
        content = (folder / name).read_bytes()
        assert (len(content), sha256(content).hexdigest()) == (size, digest), name
        assert b"\r" not in content


def test_every_text_has_its_share_in_the_mixture():
    assert {name for name, _ in MIXTURE} == set(
        recorded((TEXTS / "README.md").read_text(encoding="utf-8"))
    )
    assert sum(weight for _, weight in MIXTURE) == 128


def test_near_half_of_the_mixture_is_english_prose():
    others = {"dialogues.jsonl", "code.txt", "arithmetic.txt", "languages.txt"}
    prose = [weight for name, weight in MIXTURE if name not in others]
    assert len(prose) >= 6
    assert 0.44 <= sum(prose) / 128 <= 0.46
    assert max(prose) / sum(prose) < 0.2


def test_calibration_and_evaluation_share_no_eight_words():
    ours = set().union(*(eights((TEXTS / name).read_text(encoding="utf-8")) for name, _ in MIXTURE))
    held_out = eights((HELD_OUT / "held-out.txt").read_text(encoding="utf-8"))
    mixed = eights(shipped_text().content)
    assert min(len(ours), len(held_out), len(mixed)) > 2000
    assert not ours & held_out
    assert not ours & mixed
    assert not held_out & mixed


LARGEST = pytest.param(write_phi_4_mini, marks=pytest.mark.long)
"""200,000 tokens, which take seconds."""


@pytest.mark.parametrize("write", [write_phi_3_5_mini, write_phi_4, LARGEST])
def test_128_sequences_of_512_are_there_for_every_phi(write, tmp_path, monkeypatch):
    tokenizer = read_tokenizer(tmp_path, write(tmp_path))
    dealt = []
    deal = module._in_turns
    monkeypatch.setattr(
        module, "_in_turns", lambda corpora, count: dealt.extend(corpora) or deal(corpora, count)
    )
    sample = shipped_sample(tokenizer, 128, 512)
    assert [(tokens.shape, tokens.dtype) for tokens in sample.tokens] == [((512,), np.int32)] * 128
    assert len({tokens.tobytes() for tokens in sample.tokens}) == 128
    assert all(len(cuts) >= 2 * weight for weight, cuts in dealt), "no 256 in these proportions"
    assert sample.record.as_json() == {
        "name": module.SHIPPED,
        "sha256": module.shipped_hash(),
        "sequences": 128,
        "length": 512,
    }
    ends = (
        tokenizer.encode("<|end|>") if write is not write_phi_4 else tokenizer.encode("<|im_end|>")
    )
    assert len(ends) == 1
    chats = sum(ends[0] in tokens for tokens in sample.tokens)
    assert 24 <= chats <= 26


def test_any_first_sequences_are_a_balanced_sample(tiny):
    texts = {name: module._shipped_corpus(name, tiny) for name, _ in MIXTURE}
    sample = shipped_sample(tiny, 64, 256)
    sources = []
    for tokens in sample.tokens:
        inner = tiny.decode(tokens[20:-20].tolist())
        sources.append([name for name, text in texts.items() if inner[5:-5] in text])
    assert all(len(of_one_part) == 1 for of_one_part in sources)
    for count in (16, 32, 64):
        for name, weight in MIXTURE:
            taken = sum(of_one_part == [name] for of_one_part in sources[:count])
            assert abs(taken - weight * count / 128) < 1, (name, count)


def test_the_same_sequences_every_time_and_fewer_are_the_first_of_more(tiny):
    some, more = shipped_sample(tiny, 8, 64), shipped_sample(tiny, 20, 64)
    again = shipped_sample(tiny, 8, 64)
    for one, two, three in zip(some.tokens, again.tokens, more.tokens, strict=False):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


def test_a_mixture_that_ends_gives_what_there_is(tiny):
    sample = shipped_sample(tiny, 10_000, 4096)
    assert 30 < sample.record.sequences < 10_000
    assert sample.record.sequences == len(sample.tokens)


def test_every_sequence_begins_as_a_prompt_does(with_bos, tmp_path):
    bos = with_bos.special.bos
    text = tmp_path / "own.txt"
    text.write_text("One word after another. " * 50, encoding="utf-8")
    for sample in (shipped_sample(with_bos, 5, 32), read_sample(text, with_bos, 5, 32)):
        assert all(tokens[0] == bos and len(tokens) == 32 for tokens in sample.tokens)
        assert all(bos not in tokens[1:] for tokens in sample.tokens)


def test_an_own_text_is_sampled_at_even_distances(tiny, tmp_path):
    path = tmp_path / "own.txt"
    content = " ".join(str(number) for number in range(700))
    path.write_text(content, encoding="utf-8")
    sample = read_sample(path, tiny, 4, 50)
    cuts = np.array(tiny.encode(content)[: len(tiny.encode(content)) // 50 * 50]).reshape(-1, 50)
    for index, tokens in enumerate(sample.tokens):
        assert np.array_equal(tokens, cuts[index * len(cuts) // 4])
    assert sample.record.sha256 == sha256(path.read_bytes()).hexdigest()
    assert sample.record.name == "own.txt"


def test_of_a_long_text_only_stretches_are_encoded(tiny, tmp_path, monkeypatch):
    path = tmp_path / "long.txt"
    path.write_text("".join(f"{number:06d} " for number in range(60_000)), encoding="utf-8")
    encoded = []
    whole = type(tiny).encode
    monkeypatch.setattr(
        type(tiny), "encode", lambda self, text: encoded.append(len(text)) or whole(self, text)
    )
    sample = read_sample(path, tiny, 3, 32)
    assert sum(encoded) < 10_000
    first = [int(tiny.decode(tokens.tolist()).split()[1]) for tokens in sample.tokens]
    assert first[0] < 10
    assert 28_000 < first[1] < 32_000
    assert first[2] > 59_000


def test_a_short_text_gives_fewer_sequences(tiny, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("Not much to read here, it is over soon.", encoding="utf-8")
    length = len(tiny.encode(path.read_text(encoding="utf-8"))) // 2
    assert read_sample(path, tiny, 128, length).record.sequences == 2


def test_json_lines_with_texts_and_conversations(tiny, tmp_path):
    path = tmp_path / "own.jsonl"
    messages = [{"role": "user", "content": "Ping?"}, {"role": "assistant", "content": "Pong!"}]
    lines = [
        json.dumps({"text": "A text of its own.\nTwo lines."}),
        "",
        json.dumps({"messages": messages}),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    expected = tiny.encode(
        "A text of its own.\nTwo lines.\n\n<|user|>Ping?<|end|><|assistant|>Pong!<|end|>"
    )
    (tokens,) = read_sample(path, tiny, 1, len(expected)).tokens
    assert tokens.tolist() == expected


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[1]",
        '{"prompt": "x"}',
        '{"text": 3}',
        '{"messages": "x"}',
        '{"messages": [{"content": "x"}]}',
        '{"messages": [{"role": "user", "content": [1]}]}',
    ],
)
def test_other_lines_are_refused_with_their_number(line, tiny, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text('{"text": "fine"}\n' + line, encoding="utf-8")
    with pytest.raises(InputError, match=r"line 2 of .*own\.jsonl.*take it out"):
        read_sample(path, tiny, 1, 2)


def test_what_cannot_be_a_calibration_text(tiny, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*: No such file"):
        read_sample(tmp_path / "absent.txt", tiny, 1, 8)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(InputError, match="found other bytes at 2; convert"):
        read_sample(latin, tiny, 1, 8)
    short = tmp_path / "short.txt"
    short.write_text("a", encoding="utf-8")
    with pytest.raises(InputError, match=r"at least 8 tokens in .*, found 1; give a longer text"):
        read_sample(short, tiny, 4, 8)
    for sequences, length in ((0, 8), (4, 1)):
        with pytest.raises(InputError, match="at least one sequence of at least 2 tokens"):
            shipped_sample(tiny, sequences, length)
