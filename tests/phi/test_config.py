"""Configurations of both schemas, as published and as broken."""

import math

import pytest

from phiquant.errors import ConfigError
from phiquant.phi.config import read_architecture, read_config
from tiny_models import longrope, tiny_config

PHI_4_MINI = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "hidden_size": 3072,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 200064,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0] * 48,
        "long_factor": [float(i + 1) for i in range(48)],
    },
    "sliding_window": 262144,
}


def nested(config):
    """The same config as transformers 5 saves it."""
    config = dict(config)
    scaling = config.pop("rope_scaling") or {"type": "default"}
    return config | {
        "rope_parameters": {
            "rope_type": scaling["type"],
            "rope_theta": config.pop("rope_theta"),
            "partial_rotary_factor": config.pop("partial_rotary_factor"),
            "original_max_position_embeddings": config.pop("original_max_position_embeddings"),
        }
        | {key: value for key, value in scaling.items() if key.endswith("_factor")}
    }


def test_phi_4_mini():
    model = read_architecture(PHI_4_MINI)
    assert (model.head_size, model.kv_heads, model.tied_head) == (128, 8, True)
    assert model.rope.dimensions == 96
    assert model.rope.long.attention_factor == pytest.approx(1.19023807, abs=1e-8)
    assert sum(math.prod(weight.shape) for weight in model.weights()) == 3_836_021_760


@pytest.mark.parametrize("config", [PHI_4_MINI, tiny_config(), tiny_config(**longrope(16))])
def test_both_schemas_read_the_same(config):
    assert read_architecture(nested(config)) == read_architecture(config)


@pytest.mark.parametrize("spelling", ["longrope", "su", "yarn"])
def test_older_spellings_of_longrope(spelling):
    changed = PHI_4_MINI | {"rope_scaling": PHI_4_MINI["rope_scaling"] | {"type": spelling}}
    assert read_architecture(changed) == read_architecture(PHI_4_MINI)


@pytest.mark.parametrize(
    "field",
    [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "rms_norm_eps",
        "max_position_embeddings",
        "original_max_position_embeddings",
        "rope_theta",
    ],
)
def test_a_missing_field_is_named(field):
    config = {key: value for key, value in PHI_4_MINI.items() if key != field}
    with pytest.raises(ConfigError, match=field):
        read_architecture(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "found LlamaForCausalLM"),
        ({"architectures": ["PhiMoEForCausalLM"]}, "found PhiMoEForCausalLM"),
        ({"architectures": None, "model_type": None}, "no architecture at all"),
        ({"num_key_value_heads": 7}, "cannot share 7"),
        ({"hidden_size": -1}, "hidden_size should be a positive integer"),
        ({"hidden_size": 3073}, "no multiple"),
        ({"hidden_size": True}, "positive integer, found True"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps should be a positive number"),
        ({"partial_rotary_factor": 1.5}, "at most the head size"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "found 'linear'"),
        ({"rope_scaling": [1]}, "should be an object"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48}}, "long_factor"),
        (
            {"rope_scaling": PHI_4_MINI["rope_scaling"] | {"long_factor": [1.0] * 47}},
            "48 entries.*found 47",
        ),
        (
            {"rope_scaling": PHI_4_MINI["rope_scaling"] | {"short_factor": [0.0] * 48}},
            "positive numbers",
        ),
        ({"hidden_act": "gelu"}, "'silu', found 'gelu'"),
    ],
)
def test_what_contradicts_itself_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        read_architecture(PHI_4_MINI | changes)


def test_two_original_lengths_are_refused():
    changed = nested(PHI_4_MINI) | {"original_max_position_embeddings": 8192}
    with pytest.raises(ConfigError, match="twice, as 8192 and as 4096"):
        read_architecture(changed)


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="found none"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ConfigError, match="found a list"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_config(tmp_path)
