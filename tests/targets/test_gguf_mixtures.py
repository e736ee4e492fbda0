"""The mixtures, tensor by tensor and byte by byte, against llama.cpp's own quantizer."""

import numpy as np
import pytest

from llama_quantizer import llama_quantize
from phiquant.errors import ConfigError, RequestError
from phiquant.phi.config import read_architecture
from phiquant.phi.survey import Survey
from phiquant.recipe import Recipe
from phiquant.targets.gguf import TARGET
from phiquant.targets.gguf.file import read_gguf
from phiquant.targets.gguf.metadata import dimension_fields
from phiquant.targets.gguf.mixtures import MIXTURES
from phiquant.targets.gguf.writer import GgufWriter
from tiny_models import longrope, tiny_config

MODELS = {
    "2 layers, grouped": {"num_hidden_layers": 2, "num_key_value_heads": 2},
    "8 layers, tied": {"num_hidden_layers": 8, "tie_word_embeddings": True},
    "17 layers, few KV heads": {"num_hidden_layers": 17, "num_key_value_heads": 2},
    "33 layers": {"num_hidden_layers": 33},
    "33 layers, grouped by 4, tied": {
        "num_hidden_layers": 33,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "rows of 288": {"num_hidden_layers": 9, "hidden_size": 288, "tie_word_embeddings": True},
    "rows of 288, untied": {
        "num_hidden_layers": 9,
        "hidden_size": 288,
        "num_key_value_heads": 2,
    },
    "rows of 320 in the down projection": {"num_hidden_layers": 9, "intermediate_size": 320},
    "rows of 272 in the down projection": {"num_hidden_layers": 9, "intermediate_size": 272},
    "rows of 240 and 272": {
        "num_hidden_layers": 9,
        "hidden_size": 240,
        "intermediate_size": 272,
        "tie_word_embeddings": True,
    },
    "rows of 240, untied": {"num_hidden_layers": 9, "hidden_size": 240, "num_key_value_heads": 2},
    "LongRoPE": {"num_hidden_layers": 2, **longrope(32)},
}


def architecture_of(**changes):
    sizes = {"hidden_size": 256, "intermediate_size": 256, "vocab_size": 64}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    return read_architecture(tiny_config(**(sizes | heads | changes)))


def plan_of(architecture, type, largest=1.0):
    seen = Survey({weight.name: largest for weight in architecture.weights()})
    return TARGET.plan(architecture, seen, Recipe("gguf", type=type).form)


def zeros(path, architecture):
    """An FP16 file of zeros: enough for llama.cpp to choose types, and quick to quantize."""
    plan = plan_of(architecture, "F16")
    with GgufWriter(path, plan, dimension_fields(architecture)):
        pass
    return path


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_gets_what_llama_quantize_gives_it(model, tmp_path):
    architecture = architecture_of(**MODELS[model])
    source = zeros(tmp_path / "zeros.gguf", architecture)
    for name, mixture in MIXTURES.items():
        rows = plan_of(architecture, name).rows
        try:
            llama_quantize(source, tmp_path / "made.gguf", mixture.file_type)
        except RuntimeError:
            # Builds of spring 2026 refuse blocks of 32 for rows that those before them, and
            # those after them, keep in F16.
            odd = [row for row in rows if len(row.shape) == 2 and row.shape[1] % 32]
            assert odd and all(row.grid == "F16" for row in odd), name
            continue
        theirs = {
            tensor.name: (tensor.type, tensor.shape, tensor.nbytes)
            for tensor in read_gguf(tmp_path / "made.gguf").tensors
        }
        ours = {row.output: (row.grid, row.shape, row.nbytes) for row in rows}
        assert ours == theirs, name


def test_fallbacks_are_told():
    plan = plan_of(architecture_of(hidden_size=240, intermediate_size=288), "Q4_K_M")
    rows = {row.output: row for row in plan.rows}
    assert rows["blk.0.attn_output.weight"].grid == "F16"
    assert "Q4_K falls back to F16" in rows["blk.0.attn_output.weight"].reason
    assert rows["blk.0.ffn_down.weight"].grid == "Q5_0"
    assert "288 is no multiple of 256" in rows["blk.0.ffn_down.weight"].reason


def test_reasons_are_given_in_words():
    plan = plan_of(architecture_of(num_hidden_layers=9, tie_word_embeddings=True), "Q4_K_M")
    rows = {row.output: row for row in plan.rows}
    assert "decides every logit" in rows["token_embd.weight"].reason
    assert "more bits" in rows["blk.0.ffn_down.weight"].reason
    assert "base type" in rows["blk.1.ffn_down.weight"].reason
    assert rows["blk.1.ffn_down.weight"].grid == "Q4_K"
    assert all(row.reason for row in plan.rows)


def test_a_value_beyond_fp16_is_kept_in_f32():
    architecture = architecture_of()
    assert {row.grid for row in plan_of(architecture, "F16", 65519.0).rows} == {"F16", "F32"}
    beyond = plan_of(architecture, "F16", 65520.0)
    assert {row.grid for row in beyond.rows} == {"F32"}
    assert "beyond FP16" in beyond.rows[0].reason


def test_precisions_pick_defaults_and_types_are_named():
    architecture = architecture_of()
    seen = Survey({weight.name: 1.0 for weight in architecture.weights()})
    picked = [
        TARGET.plan(architecture, seen, Recipe("gguf", precision).form).type
        for precision in ("int4", "int8", "fp16", "fp32")
    ]
    assert picked == ["Q4_K_M", "Q8_0", "F16", "F32"]
    assert plan_of(architecture, "q5_k_s").type == "Q5_K_S"
    with pytest.raises(RequestError, match="Q4_K_M"):
        plan_of(architecture, "Q4_X")


def test_heads_that_do_not_fill_the_hidden_size_are_refused():
    with pytest.raises(ConfigError, match="another target"):
        plan_of(architecture_of(head_dim=48), "Q8_0")


def test_a_window_that_llama_cpp_ignores_is_noted():
    assert plan_of(architecture_of(sliding_window=None), "F16").notes == ()
    assert plan_of(architecture_of(sliding_window=256), "F16").notes == ()
    (note,) = plan_of(architecture_of(sliding_window=100), "F16").notes
    assert "beyond 100 tokens" in note


def test_longrope_has_two_rows_of_factors():
    plan = plan_of(architecture_of(**longrope(32)), "Q4_K_M")
    factors = [row for row in plan.rows if row.source is None]
    assert [row.output for row in factors] == [
        "rope_factors_long.weight",
        "rope_factors_short.weight",
    ]
    assert all(row.nbytes == 4 * 16 for row in factors)


def test_the_data_of_a_plan_adds_up():
    architecture = architecture_of()
    plan = plan_of(architecture, "F32")
    assert plan.nbytes == 4 * sum(np.prod(weight.shape) for weight in architecture.weights())
