"""The plan of an MLX artifact, byte for byte beside mlx_lm.convert's."""

import json
from collections import Counter

import pytest
from mlx_tiny import SHAPE, tiny_source, write_artifact
from safetensors import safe_open

from phiquant.errors import ConfigError, RequestError
from phiquant.phi.config import read_architecture
from phiquant.phi.network.parts import Role
from phiquant.phi.survey import Survey
from phiquant.recipe import Recipe
from phiquant.targets.mlx import TARGET
from tiny_models import longrope, tiny_config, tiny_weights


def planned(dtype="BF16", largest=1.0, asked=None, **changes):
    architecture = read_architecture(tiny_config(**(SHAPE | changes)))
    survey = Survey({weight.name: largest for weight in architecture.weights()}, dtype)
    return TARGET.plan(architecture, survey, Recipe("mlx", **(asked or {})).form)


def tensors_of(directory):
    """Name → (dtype, shape) of everything in a directory's safetensors files."""
    tensors = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(name)
                tensors[name] = part.get_dtype(), tuple(part.get_shape())
    return tensors


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "dtype"), [("4bit-g64", "BF16"), ("3bit-g32", "F16"), ("8bit-g128", "F32")]
)
def test_quantized_tensors_and_bytes_are_those_of_mlx_lm_convert(tmp_path, kind, dtype, tied):
    mlx_lm = pytest.importorskip("mlx_lm")
    torch_dtype = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]
    source = tiny_source(
        tmp_path / "source", dtype=dtype, torch_dtype=torch_dtype, tie_word_embeddings=tied
    )
    plan = write_artifact(source, tmp_path / "ours", type=kind)
    bits, group = (int(word.strip("g")) for word in kind.split("bit-"))
    mlx_lm.convert(
        str(source.directory), str(tmp_path / "theirs"), True, q_group_size=group, q_bits=bits
    )
    assert tensors_of(tmp_path / "ours") == tensors_of(tmp_path / "theirs")
    index = json.loads((tmp_path / "theirs" / "model.safetensors.index.json").read_text())
    assert plan.nbytes == index["metadata"]["total_size"]
    own = json.loads((tmp_path / "ours" / "model.safetensors.index.json").read_text())
    assert own == index
    ours, theirs = (
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")
    )
    assert ours["quantization"] == theirs["quantization"]
    assert ours["quantization_config"] == theirs["quantization_config"]


@pytest.mark.parametrize(("kind", "dtype"), [("bf16", "bfloat16"), ("fp32", "float32")])
def test_float_tensors_and_bytes_are_those_of_mlx_lm_convert(tmp_path, kind, dtype):
    mlx_lm = pytest.importorskip("mlx_lm")
    source = tiny_source(tmp_path / "source")
    plan = write_artifact(source, tmp_path / "ours", type=kind)
    mlx_lm.convert(str(source.directory), str(tmp_path / "theirs"), dtype=dtype)
    assert tensors_of(tmp_path / "ours") == tensors_of(tmp_path / "theirs")
    index = json.loads((tmp_path / "theirs" / "model.safetensors.index.json").read_text())
    assert plan.nbytes == index["metadata"]["total_size"]


def test_precisions_pick_their_defaults():
    picked = {name: planned(asked={"precision": name}).type for name in TARGET.defaults}
    assert picked == {"int4": "4bit-g64", "int8": "8bit-g64", "fp16": "fp16", "fp32": "fp32"}
    assert set(TARGET.defaults.values()) <= set(TARGET.types)
    assert len(TARGET.types) == 6 * 3 + 3


def test_every_type_has_a_plan_with_reasons():
    for name in TARGET.types:
        plan = planned(asked={"type": name})
        assert plan.type == name
        assert all(row.reason for row in plan.rows)
        assert {row.grid for row in plan.rows} <= set(TARGET.grids)
        assert [row.source for row in plan.rows if row.role.is_norm] != []


def test_a_group_that_does_not_divide_falls_back_to_the_largest_that_does():
    plan = planned(asked={"type": "4bit-g128"}, hidden_size=192, intermediate_size=160)
    columns = {row.shape[-1]: row for row in plan.rows if not row.role.is_norm}
    assert TARGET.grids[columns[192].grid].block == 64
    assert "192" in columns[192].reason
    assert TARGET.grids[columns[160].grid].block == 32
    none = planned(asked={"type": "4bit-g128"}, hidden_size=80, dtype="F16")
    kept = {row.role: row for row in none.rows if row.shape[-1] == 80}
    assert kept[Role.QKV].grid == "F16"
    assert "80" in kept[Role.QKV].reason


def test_fallback_groups_are_written_as_overrides(tmp_path):
    source = tiny_source(tmp_path / "source", hidden_size=192)
    plan = write_artifact(source, tmp_path / "out", type="4bit-g128")
    entry = json.loads((tmp_path / "out" / "config.json").read_text())["quantization"]
    assert entry.pop("group_size") == 128
    assert (entry.pop("bits"), entry.pop("mode")) == (4, "affine")
    rows = [row for row in plan.rows if row.shape[-1] == 192 and not row.role.is_norm]
    assert set(entry) == {row.output for row in rows}
    assert all(value == {"group_size": 64, "bits": 4, "mode": "affine"} for value in entry.values())


def test_fp16_beyond_its_range_is_refused_with_the_remedy():
    with pytest.raises(RequestError, match=r"65504.*70000.*bf16"):
        planned(largest=7e4, asked={"type": "fp16"})
    assert planned(largest=65519.0, asked={"type": "fp16"}).type == "fp16"
    for name in ("bf16", "fp32", "4bit-g64"):
        assert planned(largest=7e4, asked={"type": name}).type == name


@pytest.mark.parametrize("name", ["Q4_K_M", "4bit", "7bit-g64", "4bit-g16", "", "4bit-g64x"])
def test_an_unknown_type_is_refused_with_the_choices(name):
    with pytest.raises(RequestError, match="4bit-g64"):
        planned(asked={"type": name})


def test_what_mlx_lm_would_compute_wrongly_is_refused():
    with pytest.raises(ConfigError, match="head_dim 64"):
        planned(head_dim=64)
    fields = longrope(32)
    fields["rope_scaling"]["attention_factor"] = 0.9
    with pytest.raises(ConfigError, match="attention factor"):
        planned(**fields)


@pytest.mark.parametrize(("context", "side"), [(None, "short"), (64, "short"), (65, "long")])
def test_the_plan_says_which_longrope_side_it_serves(context, side):
    notes = planned(asked={"context": context}, **longrope(32)).notes
    assert len(notes) == 1
    assert f"the {side} ones" in notes[0]


def test_a_context_beyond_the_model_is_refused():
    with pytest.raises(RequestError, match="256"):
        planned(asked={"context": 257})
    assert planned(asked={"context": 256}).notes == ()


def test_a_sliding_window_that_the_runtime_ignores_is_noted():
    assert "sliding window of 47" in planned(sliding_window=47).notes[0]
    assert planned(sliding_window=256).notes == ()


def test_the_plan_counts_every_weight():
    weights = tiny_weights(tiny_config(**SHAPE))
    plan = planned()
    assert plan.weights == sum(values.size for values in weights.values())
    assert Counter(row.source for row in plan.rows) == Counter(list(weights))
