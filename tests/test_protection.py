"""What `balanced` and `best` keep at 8 bits, and who says otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from command_line import tiny_model
from phiquant.phi.architecture import Role
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from phiquant.pipeline import quantize
from phiquant.protection import plan_of
from phiquant.recipe import Budget, Recipe
from phiquant.targets.table import MODULES, target

EIGHT = {"openvino": "i8 channel", "onnx": "int8-b256-sym F32"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    widths = {"hidden_size": 256, "intermediate_size": 512}
    return tiny_model(tmp_path_factory.mktemp("protection") / "tiny-phi", **widths)


def planned(model, recipe):
    source = Checkpoint.open(model)
    return plan_of(recipe, source.architecture, survey(source))


@pytest.mark.parametrize("quality", ["balanced", "best"])
@pytest.mark.parametrize("name", EIGHT)
def test_values_get_8_bits_and_everything_else_what_it_had(model, name, quality):
    plain = planned(model, Recipe(name))
    found = planned(model, Recipe(name, quality=quality))
    before = {row.output: row for row in plain.rows}
    parts = [row for row in found.rows if row.role is Role.QKV]
    assert [row for row in found.rows if row.role is not Role.QKV] == [
        row for row in plain.rows if row.role is not Role.QKV
    ]
    assert len(parts) == 3 * Checkpoint.open(model).architecture.layers
    for row in parts:
        is_value = row.output.endswith(".v_proj")
        whole = before[row.output.replace(row.output.rpartition(".")[2], "qkv_proj")]
        assert row.grid == (EIGHT[name] if is_value else whole.grid)
        assert row.nbytes == sum(
            part.nbytes for part in target(name).grids[row.grid].layout(row.shape).values()
        )
        assert ("8 bits" in row.reason) == is_value
    assert found.type == plain.type


@pytest.mark.parametrize("name", EIGHT)
def test_values_that_no_heads_share_stay_with_the_rest(tmp_path, name):
    widths = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    path = tiny_model(tmp_path / "mha", **widths, num_key_value_heads=4)
    found = planned(path, Recipe(name, quality="best"))
    assert not any(row.output.endswith(".v_proj") for row in found.rows)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "changes",
    [
        {"quality": "fast"},
        {"type": True},
        {"budget": Budget(bits_per_weight=5.0)},
        {"precision": "int8"},
        {"precision": "fp32"},
    ],
    ids=str,
)
def test_what_is_asked_for_is_what_is_planned(model, name, changes):
    if "type" in changes:
        changes = {"type": target(name).defaults["int4"]}
    recipe = replace(Recipe(name, quality="balanced"), **changes)
    source = Checkpoint.open(model)
    surveyed = survey(source)
    expected = target(name).plan(source.architecture, surveyed, recipe)
    assert plan_of(recipe, source.architecture, surveyed) == expected


@pytest.mark.parametrize("name", EIGHT)
def test_what_is_planned_is_written_and_runs(model, tmp_path, name):
    pytest.importorskip({"onnx": "onnxruntime_genai", "openvino": "openvino_genai"}[name])
    (made,) = quantize(model, [Recipe(name, quality="balanced")], tmp_path / "out")
    artifact, source = target(name).open(made.path), Checkpoint.open(model)
    entries = {entry.name: entry for entry in artifact.entries()}
    assert entries["model.layers.0.self_attn.v_proj.weight"].type == EIGHT[name]
    model_ = source.architecture
    values = slice(model_.qkv_rows - model_.kv_heads * model_.head_size, None)
    with target(name).runner(made.path) as runner:
        assert np.isfinite(runner.logits(np.arange(3, 20, dtype=np.int32))).all()
    plain = quantize(model, [Recipe(name, type=made.plan.type, quality="balanced")], tmp_path / "b")
    other = target(name).open(plain[0].path)
    stored, without = (
        one.weight("model.layers.0.self_attn.qkv_proj.weight") for one in (artifact, other)
    )
    assert np.array_equal(stored[: values.start], without[: values.start])
    assert not np.array_equal(stored[values], without[values])
