"""What our writer leaves, in unmodified ONNX Runtime, against the reference forward."""

import json

import numpy as np
import pytest
import tokenizers
from onnx_tiny import some_tokens, tiny_source, write_artifact
from test_mlx_runtime import chain_source

from parity_corpus import random_texts
from phiquant.errors import ArtifactError
from phiquant.evaluation.figures import mean_divergence
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.targets.onnx import TARGET
from published_tokenizers import write_phi_3_5_mini
from tiny_models import longrope, write_tiny_checkpoint

pytest.importorskip("onnxruntime_genai")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_ir = pytest.importorskip("onnx_ir")

ORIGINAL = 32

FEATURES = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "full-heads": {"num_key_value_heads": 4},
    "one-kv-head": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "partial-rotary": {"partial_rotary_factor": 0.5, "rope_theta": 250000.0},
    "narrow-rotary": {"partial_rotary_factor": 0.75},  # 12 pairs: rotation outside of attention
    "window": {"sliding_window": 9},
    "longrope": longrope(32, original=ORIGINAL),
    "longrope-narrow": longrope(24, original=ORIGINAL) | {"partial_rotary_factor": 0.75},
}

FORMS = {
    "fp32": ("fp32", {}, 1e-4),
    "fp16": ("fp16", {}, 1e-4),
    "int4": ("int4-b32", {"accuracy_level": 0}, 1e-4),
    "int4-sym": ("int4-b16-sym", {"accuracy_level": 0, "embedding": 8}, 1e-4),
    "int8": ("int8-b128", {"accuracy_level": 0}, 1e-4),
    "fp32-qdq": ("fp32", {"qdq": "true"}, 1e-4),
    # onnxruntime turns these into MatMulNBits with int8 activations.
    "int4-qdq": ("int4-b32", {"qdq": "true"}, 0.15),
    "int4-sym-qdq": ("int4-b64-sym", {"qdq": "true"}, 0.15),
    "int8-qdq": ("int8-b32", {"qdq": "true"}, 0.15),
    "int4-activations": ("int4-b32", {}, 0.15),
    "cuda": ("int4-b32", {"provider": "cuda"}, 0.02),
    "dml": ("int8-b32-sym", {"provider": "dml"}, 0.02),
    "webgpu": ("fp16", {"provider": "webgpu"}, 0.02),
    "mobile": ("int8-b32", {"provider": "mobile", "accuracy_level": 1}, 1e-4),
}


def differences(directory, weights, lengths):
    """The largest difference in a logit at each length, in units of the logits' own spread."""
    reference = Reference(weights)
    with TARGET.runner(directory) as runner:
        for length in lengths:
            logits = runner.logits(some_tokens(length))
            wanted = reference.logits(some_tokens(length))
            assert logits.shape == wanted.shape
            assert logits.dtype == np.float32
            assert wanted.std() > 0.1
            yield np.abs(logits - wanted).max() / wanted.std()


def pairs():
    """Every form with every feature; every other pair is for long runs."""
    for i, form in enumerate(FORMS):
        for j, feature in enumerate(FEATURES):
            marks = [pytest.mark.long] if (i + j) % 2 else []
            yield pytest.param(form, feature, marks=marks, id=f"{form}-{feature}")


@pytest.mark.parametrize(("form", "feature"), list(pairs()))
def test_logits_are_those_of_the_decoded_weights(tmp_path, feature, form):
    kind, options, tolerance = FORMS[form]
    source = tiny_source(tmp_path / "source", dtype="F32", **FEATURES[feature])
    write_artifact(source, tmp_path / "out", kind, **options)
    artifact = TARGET.open(tmp_path / "out")
    assert artifact.type == kind
    lengths = (1, ORIGINAL, ORIGINAL + 1, 60)
    assert max(differences(tmp_path / "out", artifact, lengths)) < tolerance


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("qdq", ["true", "false"])
def test_fp32_is_the_checkpoints_network(tmp_path, feature, qdq):
    source = tiny_source(tmp_path / "source", dtype="F32", **FEATURES[feature])
    write_artifact(source, tmp_path / "out", "fp32", qdq=qdq)
    tokens = some_tokens(60)
    with TARGET.runner(tmp_path / "out") as runner:
        logits = runner.logits(tokens)
        np.testing.assert_array_equal(runner.logits(tokens, last=3), logits[-3:])
    assert mean_divergence(Reference(source).logits(tokens), logits, tokens) < 1e-5


@pytest.mark.parametrize("kind", ["int4-b32", "int8-b64-sym"])
def test_both_forms_give_the_same_logits(tmp_path, kind):
    """The same weights through contrib operators and through standard ones."""
    source = tiny_source(tmp_path / "source", dtype="F32", vocab_size=512)
    write_artifact(source, tmp_path / "fused", kind, embedding=8)
    write_artifact(source, tmp_path / "standard", kind, qdq="true")
    logits = []
    for name in ("fused", "standard"):
        with TARGET.runner(tmp_path / name) as runner:
            logits.append(runner.logits(some_tokens(40)))
    assert np.abs(logits[0] - logits[1]).max() < 0.05 * logits[0].std()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["int4-b32", "int8-b64-sym"])
def test_every_product_of_the_standard_form_is_fused(tmp_path, kind, tied):
    """A product that is not dequantizes its whole matrix for every token."""
    source = tiny_source(tmp_path / "source", tie_word_embeddings=tied)
    plan = write_artifact(source, tmp_path / "out", kind, qdq="true")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    path = str(tmp_path / "out" / "model.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    optimized = onnx_ir.load(tmp_path / "optimized.onnx").graph
    products = [node for node in optimized if node.op_type == "MatMulNBits"]
    assert len(products) == 4 * source.architecture.layers + 1
    stored = (tmp_path / "out" / "model.onnx.data").stat().st_size
    assert plan.nbytes <= stored < plan.nbytes + 4096 * len(plan.rows)


def test_wrong_rotary_factors_would_show(tmp_path):
    """The power of the LongRoPE tests: short factors one token too far are far off."""
    sources = []
    for original in (ORIGINAL, ORIGINAL + 8):
        fields = longrope(32, original=original)
        fields["rope_scaling"]["attention_factor"] = 1.2
        sources.append(tiny_source(tmp_path / f"{original}", dtype="F32", **fields))
    source, other = sources
    write_artifact(other, tmp_path / "out", "fp32")
    at_32, at_33 = differences(tmp_path / "out", source, (ORIGINAL, ORIGINAL + 1))
    assert at_33 > 100 * at_32


# Generation -------------------------------------------------------------------------------------


def greedy(runner, prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(runner.logits(np.array(tokens, np.int32), last=1)[0].argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.mark.parametrize(
    "options",
    [{}, {"qdq": "true"}, {"last_logits": "true"}, {"provider": "dml"}],
    ids=["fused", "standard", "last", "positions"],
)
def test_generation_is_greedy_decoding(tmp_path, options):
    """Through the KV cache, which is shared in one form and grows in the other."""
    source = tiny_source(tmp_path / "source", dtype="F32", tie_word_embeddings=True)
    write_artifact(source, tmp_path / "plain", "fp16" if "provider" in options else "fp32")
    write_artifact(source, tmp_path / "out", "fp16" if "provider" in options else "fp32", **options)
    if "provider" in options:  # genai would look for the GPU
        path = tmp_path / "out" / "genai_config.json"
        config = json.loads(path.read_text())
        config["model"]["decoder"]["session_options"]["provider_options"] = []
        path.write_text(json.dumps(config))
    with TARGET.runner(tmp_path / "plain") as plain, TARGET.runner(tmp_path / "out") as runner:
        answer = runner.generate(some_tokens(11), 12)
        assert answer.tokens == greedy(plain, some_tokens(11), 12)
        assert answer.tokens_per_second > 0


@pytest.mark.parametrize("qdq", ["false", "true"])
def test_generation_crosses_longropes_boundary(tmp_path, qdq):
    """genai computes the sequence anew with the long factors when it reaches 4,097 tokens."""
    fields = longrope(32, original=4096, maximum=8192)
    source = tiny_source(tmp_path / "source", dtype="F32", num_hidden_layers=1, **fields)
    write_artifact(source, tmp_path / "out", "fp32", qdq=qdq)
    with TARGET.runner(tmp_path / "out") as runner:
        prompt = some_tokens(4093)
        tokens = runner.generate(prompt, 8).tokens
        assert tokens == greedy(runner, prompt, 8)


@pytest.mark.parametrize("which", [0, 1])
def test_generation_stops_at_each_end_of_sequence(tmp_path, which):
    ends = read_tokenizer(tiny_source(tmp_path / "first").directory, 512).special.ends
    source = chain_source(tmp_path / "source", {10: 20, 20: 30, 30: ends[which], ends[which]: 10})
    write_artifact(source, tmp_path / "out", "fp32")
    with TARGET.runner(tmp_path / "out") as runner:
        assert [token for token in range(512) if runner.stops_at(token)] == list(ends)
        whole = runner.generate(np.array([5, 10], np.int32), 8)
        assert whole.tokens == (20, 30)
        assert whole.stopped
        assert whole.text
        cut = runner.generate(np.array([10], np.int32), 2)
        assert cut.tokens == (20, 30)
        assert not cut.stopped
        assert runner.generate(np.array([30], np.int32), 8).tokens == ()


@pytest.mark.parametrize("tokenizer", ["bpe", "sentencepiece"])
def test_tokens_are_those_of_the_tokenizers_library(tmp_path, tokenizer):
    source = tiny_source(tmp_path / "source", tokenizer)
    write_artifact(source, tmp_path / "out", "int8-b32")
    expected = read_tokenizer(source.directory, 512)
    # genai splits digits of LlamaTokenizer, as the published vocabularies do; this one has "3.1".
    texts = ["<|user|>naïve  code\n\treturn 3<|end|><|assistant|>", "", " a", "b<|end|> c"]
    with TARGET.runner(tmp_path / "out") as runner:
        for text in texts:
            assert runner.tokenize(text) == expected.encode(text)
        assert "ONNX Runtime GenAI" in runner.runtime
        assert not runner.slow


def test_what_the_runtime_refuses_is_an_artifact_error(tmp_path):
    source = tiny_source(tmp_path / "source")
    write_artifact(source, tmp_path / "out", "int4-b32")
    (tmp_path / "out" / "model.onnx.data").unlink()
    with pytest.raises(ArtifactError, match="does not load"):
        TARGET.runner(tmp_path / "out")
    with pytest.raises(ArtifactError, match="found none"):
        TARGET.runner(tmp_path / "nowhere")


def test_logits_of_one_position_cannot_be_measured(tmp_path):
    source = tiny_source(tmp_path / "source", dtype="F32")
    write_artifact(source, tmp_path / "out", "fp32", last_logits="true")
    with TARGET.runner(tmp_path / "out") as runner:
        with pytest.raises(ArtifactError, match="last_logits"):
            runner.logits(some_tokens(4))
        whole = Reference(source).logits(some_tokens(1))
        np.testing.assert_allclose(runner.logits(some_tokens(1)), whole, atol=1e-4)


def test_a_real_sentencepiece_vocabulary_is_not_split(tmp_path):
    """Contractions, runs of blanks and spelt-out bytes as the tokenizers library has them."""
    source = tmp_path / "source"
    source.mkdir()
    size = write_phi_3_5_mini(source)
    checkpoint = Checkpoint.open(write_tiny_checkpoint(source, vocab_size=size))
    write_artifact(checkpoint, tmp_path / "out", "int8-b32")
    tokenizer = read_tokenizer(source, size)
    texts = ["M'do", "i  x", "e  Α", "<0x41>", "𝄞🜁 rare", "  <|end|>  x  ", *random_texts(100, 5)]
    with TARGET.runner(tmp_path / "out") as runner:
        for text in texts:
            assert runner.tokenize(text) == tokenizer.encode(text), text
    rewritten = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    for text in texts:
        assert rewritten.encode(text, add_special_tokens=False).ids == tokenizer.encode(text), text
