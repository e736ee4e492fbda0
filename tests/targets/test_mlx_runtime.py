"""What our writer leaves, in unmodified mlx_lm, against the reference over the decoded weights."""

import numpy as np
import pytest
from mlx_tiny import SHAPE, some_tokens, tiny_source, write_artifact

from phiquant.errors import ArtifactError
from phiquant.phi.reference import Reference
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.targets.mlx import TARGET
from tiny_models import longrope, tiny_config, tiny_weights

mlx_lm = pytest.importorskip("mlx_lm")

FEATURES = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "full-heads": {"num_key_value_heads": 4},
    "one-kv-head": {"num_key_value_heads": 1},
    "partial-rotary": {"partial_rotary_factor": 0.75, "rope_theta": 250000.0},
    "rope-parameters": {
        "rope_theta": None,
        "partial_rotary_factor": None,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 500.0,
            "partial_rotary_factor": 0.5,
        },
    },
}


def largest_difference(directory, source, tokens):
    with TARGET.runner(directory) as runner:
        return difference(runner, source, tokens)


def difference(runner, source, tokens):
    logits = runner.logits(tokens)
    wanted = Reference(source).logits(tokens)
    assert logits.dtype == np.float32
    assert logits.shape == wanted.shape
    assert wanted.std() > 0.1
    return np.abs(logits - wanted).max()


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("kind", ["fp32", "4bit-g64"])
def test_logits_are_those_of_the_decoded_weights(tmp_path, feature, kind):
    source = tiny_source(tmp_path / "source", dtype="F32", **FEATURES[feature])
    write_artifact(source, tmp_path / "out", type=kind)
    decoded = TARGET.open(tmp_path / "out")
    assert largest_difference(tmp_path / "out", decoded, some_tokens(40)) < 1e-3
    if kind == "fp32":
        assert largest_difference(tmp_path / "out", source, some_tokens(40)) < 1e-3


@pytest.mark.parametrize("kind", ["2bit-g32", "3bit-g128", "5bit-g32", "6bit-g64", "8bit-g128"])
def test_every_width_loads_and_computes(tmp_path, kind):
    source = tiny_source(tmp_path / "source", dtype="F32", tie_word_embeddings=True)
    write_artifact(source, tmp_path / "out", type=kind)
    decoded = TARGET.open(tmp_path / "out")
    assert largest_difference(tmp_path / "out", decoded, some_tokens(9)) < 1e-3


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("bf16", "BF16", 0.25), ("4bit-g64", "BF16", 0.25), ("fp16", "BF16", 0.03)],
)
def test_sixteen_bit_activations_stay_close(tmp_path, kind, dtype, tolerance):
    """The runtime computes in the parameter dtype, so only its rounding separates the two."""
    source = tiny_source(tmp_path / "source", dtype=dtype)
    write_artifact(source, tmp_path / "out", type=kind)
    decoded = TARGET.open(tmp_path / "out")
    assert largest_difference(tmp_path / "out", decoded, some_tokens(40)) < tolerance


def test_rows_that_the_group_does_not_divide_load_as_planned(tmp_path):
    """96 columns take groups of 32, 80 columns none at all."""
    source = tiny_source(tmp_path / "source", dtype="F32", hidden_size=80, intermediate_size=96)
    plan = write_artifact(source, tmp_path / "out", type="4bit-g128")
    assert len(plan.grids) == 2
    decoded = TARGET.open(tmp_path / "out")
    assert largest_difference(tmp_path / "out", decoded, some_tokens(9)) < 1e-3


# LongRoPE ---------------------------------------------------------------------------------------

ORIGINAL = 64


def long_source(directory, **changes):
    # 20 of the 32 dimensions of a head rotate.
    fields = longrope(20, original=ORIGINAL, maximum=256) | {"partial_rotary_factor": 0.625}
    fields["rope_scaling"] |= changes
    return tiny_source(directory, dtype="F32", **fields)


@pytest.mark.parametrize(
    ("context", "right", "wrong"),
    [(None, ORIGINAL, ORIGINAL + 1), (ORIGINAL, ORIGINAL, ORIGINAL + 1), (200, 65, 64)],
)
def test_longrope_is_the_models_own_on_the_served_side(tmp_path, context, right, wrong):
    source = long_source(tmp_path / "source")
    write_artifact(source, tmp_path / "out", type="fp32", context=context)
    artifact = TARGET.open(tmp_path / "out")
    assert artifact.served.first <= right <= artifact.served.last
    assert not artifact.served.first <= wrong <= artifact.served.last
    with TARGET.runner(tmp_path / "out") as runner:
        assert difference(runner, source, some_tokens(right)) < 1e-3
        assert difference(runner, source, some_tokens(wrong)) > 1e-2
        # Over the decoded weights, the reference agrees with the runtime on either side.
        for length in (right, wrong):
            assert difference(runner, artifact, some_tokens(length)) < 1e-3


@pytest.mark.parametrize("factor", [1.0, 1.08, 1.7])
def test_an_attention_factor_of_the_checkpoints_own_is_kept(tmp_path, factor):
    source = long_source(tmp_path / "source", attention_factor=factor)
    assert source.architecture.rope.long.attention_factor == factor
    write_artifact(source, tmp_path / "out", type="fp32")
    assert largest_difference(tmp_path / "out", source, some_tokens(50)) < 1e-3


def test_a_stock_conversion_is_wrong_below_the_boundary(tmp_path):
    """Why `context` exists. If this fails, mlx_lm has learnt to choose factors by length."""
    source = long_source(tmp_path / "source")
    mlx_lm.convert(str(source.directory), str(tmp_path / "stock"), dtype="float32")
    assert largest_difference(tmp_path / "stock", source, some_tokens(ORIGINAL)) > 1e-2
    assert largest_difference(tmp_path / "stock", source, some_tokens(ORIGINAL + 1)) < 1e-3
    stock = TARGET.open(tmp_path / "stock")
    assert (stock.served.first, stock.served.side) == (ORIGINAL + 1, "long")


# Generation -------------------------------------------------------------------------------------


def chain_source(directory, following):
    """A model in which `following[t]` follows token `t`: embeddings pass through every layer."""
    weights = tiny_weights(tiny_config(**SHAPE))
    for name, values in weights.items():
        if "o_proj" in name or "down_proj" in name or "lm_head" in name:
            values[:] = 0
        if "norm" in name:
            values[:] = 1
    for token, successor in following.items():
        weights["lm_head.weight"][successor] = weights["model.embed_tokens.weight"][token]
    return tiny_source(directory, dtype="F32", weights=weights)


@pytest.mark.parametrize("which", [0, 1])
def test_generation_stops_at_each_end_of_sequence(tmp_path, which):
    ends = read_tokenizer(tiny_source(tmp_path / "first").directory, 512).special.ends
    assert len(ends) == 2
    source = chain_source(tmp_path / "source", {10: 20, 20: 30, 30: ends[which], ends[which]: 10})
    write_artifact(source, tmp_path / "out", type="fp32")
    with TARGET.runner(tmp_path / "out") as runner:
        assert [token for token in range(512) if runner.stops_at(token)] == list(ends)
        whole = runner.generate(np.array([5, 10], np.int32), 8)
        assert whole.tokens == (20, 30)
        assert whole.stopped
        assert whole.text
        cut = runner.generate(np.array([10], np.int32), 2)
        assert cut.tokens == (20, 30)
        assert not cut.stopped
        assert cut.tokens_per_second > 0
        assert runner.generate(np.array([30], np.int32), 8).tokens == ()


@pytest.mark.parametrize("tokenizer", ["bpe", "sentencepiece"])
def test_tokens_are_those_of_the_tokenizers_library(tmp_path, tokenizer):
    from tokenizers import Tokenizer

    source = tiny_source(tmp_path / "source", tokenizer)
    write_artifact(source, tmp_path / "out", type="8bit-g64")
    expected = Tokenizer.from_file(str(source.directory / "tokenizer.json"))
    texts = ["<|user|>naïve  code\n\treturn 3.14<|end|><|assistant|> 👍", "", " a", "b<|end|> c"]
    with TARGET.runner(tmp_path / "out") as runner:
        for text in texts:
            assert runner.tokenize(text) == expected.encode(text, add_special_tokens=False).ids
        assert mlx_lm.__version__ in runner.runtime


def test_long_sequences_go_through_the_cache_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("phiquant.targets.mlx.runner.PIECE", 16)
    source = tiny_source(tmp_path / "source", dtype="F32")
    write_artifact(source, tmp_path / "out", type="fp32")
    assert largest_difference(tmp_path / "out", source, some_tokens(50)) < 1e-3


def test_what_mlx_lm_refuses_is_an_artifact_error(tmp_path):
    source = tiny_source(tmp_path / "source")
    write_artifact(source, tmp_path / "out", type="4bit-g64")
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match="does not load"):
        TARGET.runner(tmp_path / "out")
    with pytest.raises(ArtifactError, match="found none"):
        TARGET.runner(tmp_path / "nowhere")
