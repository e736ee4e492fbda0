"""Artifacts in OpenVINO and openvino_genai themselves, against the reference forward."""

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from math import prod

import numpy as np
import pytest
from openvino_tiny import operations, some_tokens, tiny_source, write_artifact

from phiquant.errors import ArtifactError
from phiquant.evaluation.figures import mean_divergence
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.text import EvaluationText
from phiquant.evaluation.verification import verify
from phiquant.phi.reference import Reference
from phiquant.targets.openvino import TARGET
from phiquant.targets.openvino.running import properties
from tiny_models import longrope

ov = pytest.importorskip("openvino")
pytest.importorskip("openvino_genai")

MODELS = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "no grouping of heads": {"num_key_value_heads": 4},
    "partial rotary": {"partial_rotary_factor": 0.5},
    "LongRoPE": {"tie_word_embeddings": True, "partial_rotary_factor": 0.75, **longrope(24)},
    "window": {"sliding_window": 11},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(features, type) → checkpoint, directory of its artifact; made once."""
    kept = {}

    def make(features, kind, options=()):
        if (features, kind, options) not in kept:
            directory = tmp_path_factory.mktemp("ov")
            checkpoint = tiny_source(directory / "source", **MODELS[features])
            write_artifact(checkpoint, directory / "artifact", type=kind, options=options)
            kept[features, kind, options] = checkpoint, directory / "artifact"
        return kept[features, kind, options]

    return make


@pytest.mark.parametrize("features", sorted(MODELS))
@pytest.mark.parametrize("length", [2, 40, 65])
def test_fp32_is_the_reference(made, features, length):
    checkpoint, path = made(features, "fp32")
    tokens = some_tokens(length)
    with TARGET.runner(path) as runner:
        logits = runner.logits(tokens)
    expected = Reference(checkpoint).logits(tokens)
    assert mean_divergence(expected, logits, tokens) < 1e-5
    np.testing.assert_allclose(logits, expected, atol=2e-3)


KINDS = ["int4-sym-g64", "int4-asym-g32", "int8-asym-channel", "int8-sym-g128", "fp16"]


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_weights_are_decoded_as_we_decode_them(made, kind):
    _, path = made("LongRoPE", kind)
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    request = ov.Core().compile_model(path / "openvino_model.xml", "CPU", exact)
    tokens = some_tokens(30)
    answer = request.create_infer_request().infer(inputs(tokens[None], 0))["logits"][0]
    expected = Reference(TARGET.open(path)).logits(tokens)
    np.testing.assert_allclose(answer, expected, atol=2e-3)


def inputs(tokens, past):
    batch, count = tokens.shape
    return {
        "input_ids": tokens.astype(np.int64),
        "attention_mask": np.ones((batch, past + count), np.int64),
        "position_ids": np.tile(np.arange(past, past + count), (batch, 1)),
        "beam_idx": np.arange(batch, dtype=np.int32),
    }


@pytest.mark.parametrize("features", ["plain", "partial rotary", "window"])
def test_decoding_step_by_step(made, features):
    checkpoint, path = made(features, "fp32")
    tokens = some_tokens(25)
    with TARGET.runner(path) as runner:
        runner.logits(some_tokens(9, seed=8))
        pieces = [runner.logits(tokens[:5])]
        pieces += [runner.step(tokens[None, at : at + 1], at)[0] for at in range(5, 25)]
    expected = Reference(checkpoint).logits(tokens)
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=2e-3)


def test_beams_are_reordered(made):
    checkpoint, path = made("plain", "fp32")
    one, other = some_tokens(12, seed=1), some_tokens(12, seed=2)
    with TARGET.runner(path) as runner:
        runner._request.reset_state()
        runner.step(np.stack([one[:10], other[:10]]), 0)
        swapped = np.array([1, 0], np.int32)
        logits = runner.step(np.stack([other[10:], one[10:]]), 10, swapped)
        both = runner.step(np.stack([one[:1], other[:1]]), 12, np.array([1, 1], np.int32))
    reference = Reference(checkpoint)
    np.testing.assert_allclose(logits[0], reference.logits(other)[10:], atol=2e-3)
    np.testing.assert_allclose(logits[1], reference.logits(one)[10:], atol=2e-3)
    for row, last in zip(both, (one[0], other[0]), strict=True):
        expected = reference.logits(np.append(one, last))[12:]
        np.testing.assert_allclose(row, expected, atol=2e-3)


def test_padding_on_the_left_is_not_seen(made):
    checkpoint, path = made("plain", "fp32")
    tokens = some_tokens(10)
    given = inputs(np.concatenate([np.zeros(4, np.int32), tokens])[None], 0)
    given["attention_mask"][:, :4] = 0
    given["position_ids"] = np.maximum(np.arange(14) - 4, 0)[None]
    with TARGET.runner(path) as runner:
        runner._request.reset_state()
        answer = runner._request.infer(given)["logits"][0, 4:]
    np.testing.assert_allclose(answer, Reference(checkpoint).logits(tokens), atol=2e-3)


@pytest.mark.parametrize("features", ["plain", "tied", "LongRoPE", "no grouping of heads"])
@pytest.mark.parametrize("kind", ["int4-sym-g64", "int4-asym-g32", "int8-asym-channel"])
def test_the_plugin_fuses_everything(made, features, kind):
    checkpoint, path = made(features, kind)
    layers = checkpoint.architecture.layers
    with TARGET.runner(path) as runner:
        runner.logits(some_tokens(5))
        nodes = operations(runner)
    counts = Counter(node["layerType"] for node in nodes)
    assert counts["RoPE"] == 2 * layers
    assert counts["RMS"] == 2 * layers + 1
    assert counts["ScaledDotProductAttention"] == layers
    assert counts["MemoryInput"] == counts["MemoryOutput"] == 2 * layers
    products = [node for node in nodes if node["layerType"] == "FullyConnected"]
    assert len(products) == 4 * layers + 1
    compressed = {"int4-sym-g64": "i4", "int4-asym-g32": "u4"}.get(kind, "u8")
    types = Counter(node["runtimePrecision"] for node in products)
    assert types == Counter({compressed: 4 * layers}) + Counter({"u8": 1})
    assert counts["MatMul"] == 1  # of positions and frequencies
    # Decompression that was left over would make arrays of a weight's size.
    least = checkpoint.architecture.hidden_size**2
    for node in nodes:
        if node["layerType"] not in ("Const", "FullyConnected"):
            assert prod(map(int, re.findall(r"\d+", node["shape"]))) < least, node


def test_a_tied_head_shares_one_constant(made):
    _, tied = made("tied", "int4-sym-g64")
    _, untied = made("plain", "int4-sym-g64")
    sizes = [(path / "openvino_model.bin").stat().st_size for path in (tied, untied)]
    assert sizes[1] - sizes[0] >= 512 * 128


def test_generation_is_greedy_and_stops_at_the_end(made, tmp_path):
    checkpoint, path = made("plain", "fp32")
    prompt = some_tokens(6)
    expected = Reference(checkpoint).generate(prompt, 12)
    with TARGET.runner(path) as runner:
        answer = runner.generate(prompt, 12)
        assert list(answer.tokens) == expected
        assert not answer.stopped
    end = expected[5]
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    settings = json.loads((copy / "generation_config.json").read_text())
    settings["eos_token_id"] = [end]
    (copy / "generation_config.json").write_text(json.dumps(settings))
    with TARGET.runner(copy) as runner:
        assert runner.stops_at(end)
        assert not runner.stops_at(end + 1)
        answer = runner.generate(prompt, 12)
    assert answer.stopped
    assert list(answer.tokens) == expected[: expected.index(end)]


def test_both_kinds_of_attention_of_the_pipeline(made):
    import openvino_genai

    checkpoint, path = made("LongRoPE", "fp32")
    prompt = some_tokens(70)
    expected = Reference(checkpoint).generate(prompt, 8)
    for backend in ("PA", "SDPA"):
        pipeline = openvino_genai.LLMPipeline(
            str(path), "CPU", ATTENTION_BACKEND=backend, INFERENCE_PRECISION_HINT="f32"
        )
        given = openvino_genai.TokenizedInputs(
            ov.Tensor(prompt[None].astype(np.int64)), ov.Tensor(np.ones((1, 70), np.int64))
        )
        answer = pipeline.generate(given, max_new_tokens=8, do_sample=False, ignore_eos=True)
        assert list(answer.tokens[0]) == expected, backend


def test_hints_are_where_the_plugin_reads_them(made):
    _, path = made("plain", "int4-sym-g64")
    model = ov.Core().read_model(path / "openvino_model.xml")
    assert model.get_rt_info(["runtime_options", "KV_CACHE_PRECISION"]).astype(str) == "u8"
    compiled = ov.Core().compile_model(model, "CPU")
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 32
    _, exact = made("plain", "fp32")
    compiled = ov.Core().compile_model(exact / "openvino_model.xml", "CPU")
    assert compiled.get_property("KV_CACHE_PRECISION") == ov.Type.f16


def in_pipeline(path, prompt, count, **given):
    """Greedy tokens of openvino_genai's paged attention, and the sum of their log probabilities."""
    import openvino_genai

    # Named, it is all that is tried; as a default it would give way to the graph's own attention.
    pipeline = openvino_genai.LLMPipeline(str(path), "CPU", ATTENTION_BACKEND="PA", **given)
    inputs = openvino_genai.TokenizedInputs(
        ov.Tensor(prompt[None].astype(np.int64)), ov.Tensor(np.ones((1, len(prompt)), np.int64))
    )
    answer = pipeline.generate(
        inputs, max_new_tokens=count, do_sample=False, ignore_eos=True, logprobs=1
    )
    return [int(token) for token in answer.tokens[0]], answer.scores[0]


def log_probability(checkpoint, prompt, continuation):
    """What the reference says of `continuation`."""
    tokens = np.append(prompt, continuation).astype(np.int32)
    rows = Reference(checkpoint).logits(tokens)[len(prompt) - 1 : -1].astype(np.float64)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows[np.arange(len(continuation)), continuation].sum()


def test_fp32_is_computed_with_paged_attention(made):
    """bfloat16 would be 0.02 off."""
    checkpoint, path = made("plain", "fp32")
    prompt = some_tokens(20)
    tokens, score = in_pipeline(path, prompt, 6, **properties(path))
    assert tokens == Reference(checkpoint).generate(prompt, 6)
    assert abs(score - log_probability(checkpoint, prompt, tokens)) < 2e-4


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8-asym-channel", "int4-sym-g64"])
def test_paged_attention_loads_as_it_comes(made, kind):
    """With bfloat16, too, where the processor has it."""
    _, path = made("plain", kind)
    tokens, _ = in_pipeline(path, some_tokens(20), 2)
    assert len(tokens) == 2


def test_other_artifacts_are_run_as_they_come(made):
    for kind in KINDS[:1] + KINDS[-1:]:
        assert properties(made("LongRoPE", kind)[1]) == {}


def test_the_line_on_the_card_runs(made):
    """The FP32 one gives the pipeline what it needs to compute in that."""
    _, path = made("plain", "fp32")
    line = TARGET.command(path)
    assert "'CPU', INFERENCE_PRECISION_HINT='f32', KV_CACHE_PRECISION='f32')" in line
    short = line.replace("max_new_tokens=200", "max_new_tokens=3")
    words = [sys.executable, *shlex.split(short)[1:]]
    ended = subprocess.run(words, cwd=path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("device", ["CPU", "gpu", "NPU"])
def test_the_line_on_the_card_names_the_device(tmp_path, device):
    checkpoint = tiny_source(tmp_path / "source")
    write_artifact(checkpoint, tmp_path / "out", options=(("ov_device", device),))
    assert f"LLMPipeline('.', '{device.upper()}').generate" in TARGET.command(tmp_path / "out")


def test_the_line_for_an_artifact_by_another_tool(made, tmp_path):
    _, path = made("plain", "fp32")
    for name in ("openvino_model.xml", "openvino_model.bin"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    text = (tmp_path / "openvino_model.xml").read_text()
    text = re.sub(r"<phiquant>.*?</phiquant>", "", text, flags=re.DOTALL)
    (tmp_path / "openvino_model.xml").write_text(text)
    assert "LLMPipeline('.', 'CPU').generate" in TARGET.command(tmp_path)
    (tmp_path / "openvino_model.xml").write_text("<net><layers>")
    with pytest.raises(ArtifactError, match="no OpenVINO model"):
        TARGET.command(tmp_path)


@pytest.mark.parametrize("length", [24, 25, 70])
def test_the_last_logits_alone(made, length):
    checkpoint, path = made("LongRoPE", "fp32")
    tokens = some_tokens(length)
    with TARGET.runner(path) as runner:
        logits = runner.logits(tokens, last=3)
    np.testing.assert_allclose(logits, Reference(checkpoint).logits(tokens)[-3:], atol=2e-3)


def test_verification_crosses_the_boundary_of_longrope(made):
    checkpoint, path = made("LongRoPE", "int8-asym-channel")
    text = EvaluationText("words", "Some words to be measured on, again and again. " * 40)
    verification = verify(path, checkpoint, Settings(text=text, window=32, windows=2, answer=8))
    outcomes = {check.name: check.outcome for check in verification.checks}
    assert outcomes["LongRoPE"] == outcomes["runtime"] == "passed"
    assert outcomes["weights"] == outcomes["metadata"] == outcomes["tokens"] == "passed"
