"""Checkpoints of other classes whose network is a Phi-3's, with its fused matrices stored apart."""

import json
from pathlib import Path

import numpy as np
import pytest
from golden_models import CASES, FormulaWeights, tokens_of

from command_line import assert_refused, assert_same_payload, call, tiny_model
from phiquant.errors import CheckpointError, ConfigError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.config import model_class, read_architecture
from phiquant.phi.outline import read_outline
from phiquant.phi.reference import Reference
from phiquant.phi.source import locate
from phiquant.phi.survey import survey
from tiny_models import (
    longrope,
    tiny_config,
    tiny_weights,
    write_safetensors,
    write_tiny_checkpoint,
)

GOLDEN = Path(__file__).parent / "golden"
SAVED = json.loads((GOLDEN / "apart.json").read_text())
PAIRS = [(name, case) for name, cases in SAVED.items() for case in cases]
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "mlp_bias": False,
    "pretraining_tp": 1,
}


def apart(config, weights):
    """The weights as a Llama stores them: some in other files' order, values before queries."""
    network = read_architecture(config).network
    stored = {}
    for name, values in weights.items():
        parts = network.linear[name].parts if name in network.linear else ()
        if len(parts) < 2:
            stored[name] = values
        for part in reversed(parts) if len(parts) > 1 else ():
            stored[part.name] = np.ascontiguousarray(values[part.first : part.last])
    return stored


def saved_apart(directory, shards=1, **changes):
    config = tiny_config(**changes)
    stored = apart(config, tiny_weights(config))
    return write_tiny_checkpoint(directory, weights=stored, shards=shards, **(LLAMA | changes))


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_its_configuration_is_that_of_a_phi_3(name, case):
    found, config = model_class(SAVED[name][case])
    assert found == name
    expected = read_architecture(CASES[case].config)
    assert read_architecture(config) == expected


@pytest.mark.parametrize(("name", "case"), PAIRS)
def test_transformers_computes_the_same_of_the_parts(name, case):
    reference = Reference(FormulaWeights(read_architecture(CASES[case].config)), resident=True)
    with np.load(GOLDEN / "apart.npz") as goldens:
        for length in CASES[case].lengths:
            expected = goldens[f"{name}/{case}/{length}"]
            logits = reference.logits(tokens_of(case, length))[-len(expected) :]
            assert np.abs(expected).max() > 1
            np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("shards", [1, 3])
def test_rows_and_elements_are_those_of_the_fused_form(tmp_path, shards, dtype):
    config = tiny_config()
    weights = tiny_weights(config)
    fused = Checkpoint.open(write_tiny_checkpoint(tmp_path / "fused", weights=weights, dtype=dtype))
    stored = apart(config, weights)
    place = write_tiny_checkpoint(
        tmp_path / "apart", weights=stored, dtype=dtype, shards=shards, **LLAMA
    )
    parts = Checkpoint.open(place)
    assert parts.architecture == fused.architecture
    assert (parts.nbytes, parts.dtype) == (fused.nbytes, fused.dtype)
    assert survey(parts) == survey(fused)
    assert {name: (each.shape, each.nbytes) for name, each in parts.tensors.items()} == {
        name: (each.shape, each.nbytes) for name, each in fused.tensors.items()
    }
    for weight in fused.architecture.weights():
        whole = fused.weight(weight.name)
        np.testing.assert_array_equal(parts.weight(weight.name), whole)
        for first, last in ((0, 0), (5, 5), (60, 70), (63, 64), (64, 96), (1, len(whole)), (9, 4)):
            np.testing.assert_array_equal(parts.weight(weight.name, first, last), whole[first:last])
        for first, last in ((0, 7), (whole.size // 2 - 3, whole.size // 2 + 40)):
            np.testing.assert_array_equal(
                parts.raw(weight.name, first, last), fused.raw(weight.name, first, last)
            )


@pytest.mark.parametrize(
    "request_",
    [
        ("--to", "gguf,mlx,onnx,openvino"),
        ("--to", "gguf,mlx", "--quality", "balanced"),
        ("--to", "mlx", "--quality", "best"),
    ],
    ids=["fast", "balanced", "best"],
)
def test_artifacts_are_the_same_to_the_byte(tmp_path, request_):
    shape = {"sliding_window": None, "num_key_value_heads": 2, "tie_word_embeddings": True}
    fused = tiny_model(tmp_path / "fused" / "model", **shape)
    place = tmp_path / "apart" / "model"
    tiny_model(place, **shape)
    config = json.loads((place / "config.json").read_text())
    stored = apart(config, tiny_weights(config))
    write_safetensors(place / "model.safetensors", stored)
    (place / "config.json").write_text(json.dumps(config | LLAMA))
    (tmp_path / "text.txt").write_text("Some words, and then other words after them. " * 60)
    if "--quality" in request_:
        text = ("--calibration", tmp_path / "text.txt", "--calibration-size", "2x48")
        request_ = (*request_, *text)
    for model in (fused, place):
        ended = call("quantize", model, *request_, "-o", model.parent / "out", "-q")
        assert ended.code == 0, ended.err
    assert_same_payload(tmp_path / "apart" / "out", tmp_path / "fused" / "out")


def test_the_plan_says_how_it_was_read(tmp_path):
    place = saved_apart(tmp_path / "model")
    (note,) = Checkpoint.open(place).notes
    assert "saved as LlamaForCausalLM" in note and "qkv_proj" in note


def test_sizes_are_known_from_the_configuration_alone(tmp_path):
    place = saved_apart(tmp_path / "model")
    outline = read_outline(locate(place))
    assert outline.architecture == Checkpoint.open(place).architecture


def test_a_mistral_that_names_no_window_has_one(tmp_path):
    said = {key: value for key, value in tiny_config().items() if key != "sliding_window"}
    mistral = said | {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    _, config = model_class(mistral)
    assert read_architecture(config).sliding_window == 4096
    _, config = model_class(mistral | {"sliding_window": None})
    assert read_architecture(config).sliding_window is None
    _, config = model_class(said | LLAMA | {"sliding_window": 7})  # which a Llama does not look at
    assert read_architecture(config).sliding_window is None


REFUSED = {
    "biases": ({"attention_bias": True}, "attention_bias"),
    "biases of the feed-forward part": ({"mlp_bias": True}, "mlp_bias"),
    "Llama 3's rotary embedding": (
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        "'llama3'",
    ),
    "another rotary embedding beside": (
        {
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
        "'linear'",
    ),
    "YaRN": ({"rope_scaling": longrope(16)["rope_scaling"] | {"type": "yarn"}}, "'yarn'"),
    "half-turned heads": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act"),
}


@pytest.mark.parametrize(("changes", "word"), REFUSED.values(), ids=REFUSED)
def test_what_phi_3_has_not_is_refused(tmp_path, changes, word):
    place = saved_apart(tmp_path / "model")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ConfigError, match=word):
        Checkpoint.open(place)
    assert_refused(call("plan", place, "-q"), 2, word)


def test_a_part_that_is_missing_is_named(tmp_path):
    config = tiny_config()
    stored = apart(config, tiny_weights(config))
    del stored["model.layers.1.self_attn.v_proj.weight"]
    place = write_tiny_checkpoint(tmp_path / "model", weights=stored, **LLAMA)
    with pytest.raises(CheckpointError, match=r"missing: model\.layers\.1\.self_attn\.v_proj"):
        Checkpoint.open(place)


def test_a_fused_matrix_is_no_part_of_a_llama(tmp_path):
    place = write_tiny_checkpoint(tmp_path / "model", weights=tiny_weights(tiny_config()), **LLAMA)
    with pytest.raises(CheckpointError, match="q_proj"):
        Checkpoint.open(place)


def test_parts_of_different_types_are_refused(tmp_path):
    config = tiny_config()
    stored = apart(config, tiny_weights(config))
    odd = {name: stored.pop(name) for name in list(stored) if "layers.0.self_attn.k_proj" in name}
    place = write_tiny_checkpoint(tmp_path / "model", weights=stored, **LLAMA)
    write_safetensors(place / "other.safetensors", odd, "F32")
    names = dict.fromkeys(stored, "model-0.safetensors") | dict.fromkeys(odd, "other.safetensors")
    (place / "model.safetensors").rename(place / "model-0.safetensors")
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"k_proj\.weight \(F32\).*in one type"):
        Checkpoint.open(place)
