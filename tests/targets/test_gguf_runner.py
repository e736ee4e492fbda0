"""Artifacts in llama.cpp itself, against the reference forward pass."""

import numpy as np
import pytest
from gguf_models import tiny_checkpoint, tiny_config, tiny_weights, write_gguf

from phiquant.errors import ArtifactError
from phiquant.phi.reference import Reference
from phiquant.targets.gguf import TARGET
from tiny_models import longrope

FEATURES = {
    "grouped": {},
    "one KV head": {"num_key_value_heads": 1},
    "all KV heads, tied": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "three-quarter rotary": {"partial_rotary_factor": 0.75},
    "another base, one layer": {"rope_theta": 250000.0, "num_hidden_layers": 1},
    "rows of 48": {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3},
    "LongRoPE": {"partial_rotary_factor": 0.75, **longrope(12, original=256, maximum=1024)},
}


def made(tmp_path, kind="bpe", precision="fp32", **changes):
    checkpoint = tiny_checkpoint(tmp_path / "tiny", kind, **changes)
    write_gguf(checkpoint, tmp_path / "out", precision=precision)
    return checkpoint, tmp_path / "out"


def random_tokens(count, seed=3):
    return np.random.default_rng(seed).integers(0, 500, count).astype(np.int32)


@pytest.mark.parametrize("feature", FEATURES)
def test_f32_logits_are_the_references(feature, tmp_path):
    checkpoint, directory = made(tmp_path, **FEATURES[feature])
    tokens = random_tokens(150)
    with TARGET.runner(directory) as runner:
        logits = runner.logits(tokens)
    expected = Reference(checkpoint).logits(tokens)
    assert logits.shape == (150, 512) and logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-3
    assert expected.std() > 0.5


def test_longrope_changes_its_factors_where_the_reference_does(tmp_path):
    checkpoint, directory = made(tmp_path, **FEATURES["LongRoPE"])
    tokens = random_tokens(700)
    reference = Reference(checkpoint, resident=True)
    with TARGET.runner(directory) as runner:
        # In an order that would show a context kept from the other side of the boundary.
        for count in (257, 256, 700, 10, 255):
            logits = runner.logits(tokens[:count])
            assert np.abs(logits - reference.logits(tokens[:count])).max() < 1e-3, count
    across = reference.logits(tokens[:257])[:256] - reference.logits(tokens[:256])
    assert np.abs(across).max() > 0.1


@pytest.mark.parametrize("precision", ["int4", "int8", "fp16"])
def test_other_precisions_run_close_to_their_decoded_weights(precision, tmp_path):
    _, directory = made(tmp_path, precision=precision, hidden_size=256, intermediate_size=256)
    tokens = random_tokens(64)
    expected = Reference(TARGET.open(directory)).logits(tokens)
    with TARGET.runner(directory) as runner:
        logits = runner.logits(tokens)
    # llama.cpp rounds activations too, to 8 bits or to FP16.
    assert np.abs(logits - expected).mean() < 0.05 * expected.std()


def with_constant_logits(config, favourite):
    """Weights of a model that ranks `favourite` first after any text.

    All embeddings are alike, so every final state is the same vector h; the head holds ±r for
    the favourite and zeros elsewhere. With one of the signs r·h > 0.
    """
    weights = tiny_weights(config)
    embedding = weights["model.embed_tokens.weight"]
    embedding[:] = embedding[0]
    head = weights["lm_head.weight"]
    row = np.abs(head[0]).copy()
    head[:] = 0
    head[favourite] = row
    return weights


def fixed_model(tmp_path, favourite):
    weights = with_constant_logits(tiny_config(), favourite)
    checkpoint = tiny_checkpoint(tmp_path / "plus", weights=weights)
    logits = Reference(checkpoint).logits(np.array([5], np.int32))
    if logits[0].argmax() != favourite:
        weights["lm_head.weight"] *= -1
        checkpoint = tiny_checkpoint(tmp_path / "minus", weights=weights)
    write_gguf(checkpoint, tmp_path / "out", precision="fp32")
    return checkpoint, tmp_path / "out"


@pytest.mark.parametrize("which", [0, 1])
def test_generation_stops_at_every_end(which, tmp_path):
    end = tiny_checkpoint(tmp_path / "probe").config["eos_token_id"][which]
    _, directory = fixed_model(tmp_path, end)
    with TARGET.runner(directory) as runner:
        generation = runner.generate(np.array([5, 6], np.int32), 10)
        assert runner.stops_at(end) and not runner.stops_at(100)
    assert generation.stopped and generation.tokens == () and generation.text == ""


def test_generation_goes_on_to_its_limit(tmp_path):
    _, directory = fixed_model(tmp_path, 100)
    with TARGET.runner(directory) as runner:
        generation = runner.generate(np.array([5, 6], np.int32), 7)
        assert generation.text == runner.text(np.full(7, 100, np.int32)) != ""
    assert not generation.stopped and generation.tokens == (100,) * 7
    assert generation.tokens_per_second > 0


def test_generation_is_the_references(tmp_path):
    checkpoint, directory = made(tmp_path)
    prompt = random_tokens(20)
    expected = Reference(checkpoint).generate(
        prompt, 30, frozenset(checkpoint.config["eos_token_id"])
    )
    with TARGET.runner(directory) as runner:
        generation = runner.generate(prompt, 30)
    assert list(generation.tokens) == expected[: len(generation.tokens)]
    assert len(generation.tokens) == len(expected) - generation.stopped


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_both_kinds_of_vocabulary_load_and_tokenize(kind, tmp_path):
    checkpoint, directory = made(tmp_path, kind)
    from phiquant.phi.tokenizer.tokenizer import read_tokenizer

    text = "<|user|>The lazy dog, 123 naïve 量子化!<|end|>"
    expected = read_tokenizer(checkpoint.directory, 512).encode(text)
    with TARGET.runner(directory) as runner:
        assert runner.tokenize(text) == expected
        assert runner.tokenize("") == []
        assert runner.runtime.startswith("llama.cpp")


def test_what_llama_cpp_refuses_is_an_artifact_error(tmp_path):
    _, directory = made(tmp_path)
    (path,) = directory.glob("*.gguf")
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_down.weight", b"blk.1.ffn_dawn.weight"))
    with pytest.raises(ArtifactError, match="ffn_down"):
        TARGET.runner(directory)


def test_the_last_logits_are_those_of_the_whole(tmp_path):
    """Also where they reach across the chunks in which a long sequence is decoded."""
    _, directory = made(tmp_path, max_position_embeddings=1024)
    tokens = random_tokens(700)
    with TARGET.runner(directory) as runner:
        whole = runner.logits(tokens)
        for last in (1, 100, 300, 700):
            np.testing.assert_allclose(runner.logits(tokens, last=last), whole[-last:], atol=1e-4)
