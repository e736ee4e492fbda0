"""What `balanced` and `best` keep at 8 bits, and who says otherwise."""

import json
from dataclasses import replace

import numpy as np
import pytest

from command_line import tiny_model
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.errors import ArtifactError
from phiquant.job import layerwise
from phiquant.job.making import quantize
from phiquant.job.protection import plan_of
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network.parts import Role
from phiquant.phi.survey import survey
from phiquant.planning.budget import Budget
from phiquant.recipe import Recipe
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
    plans = planned(model, Recipe(name, quality=quality))
    before = {row.output: row for row in plain.rows}
    parts = [row for row in plans.rows if row.role is Role.QKV]
    assert [row for row in plans.rows if row.role is not Role.QKV] == [
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
    assert plans.type == plain.type


@pytest.mark.parametrize("name", EIGHT)
def test_values_that_no_heads_share_stay_with_the_rest(tmp_path, name):
    widths = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    path = tiny_model(tmp_path / "mha", **widths, num_key_value_heads=4)
    plans = planned(path, Recipe(name, quality="best"))
    assert not any(row.output.endswith(".v_proj") for row in plans.rows)


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
    expected = target(name).plan(source.architecture, surveyed, recipe.form)
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


@pytest.mark.parametrize("name", EIGHT)
@pytest.mark.parametrize(
    "budget",
    [None, pytest.param(Budget(bits_per_weight=6.0), marks=pytest.mark.long)],
    ids=["protected", "budget"],
)
def test_best_writes_what_it_rounded_part_by_part(model, tmp_path, monkeypatch, name, budget):
    """Killed between two parts and gone on with, in bands that end within parts."""
    pytest.importorskip({"onnx": "onnx_ir", "openvino": "openvino_tokenizers"}[name])
    monkeypatch.setattr("phiquant.job.streaming.BAND", 37 * 256)
    recipe, text = Recipe(name, quality="best", budget=budget), CalibrationText(None, 8, 64)
    (made,) = quantize(model, [recipe], tmp_path / "whole", text=text)
    assert any(row.output.endswith(".v_proj") for row in made.plan.rows)
    at, calls, rounded = 5, 0, layerwise._rounded

    def killing(*arguments):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return rounded(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(layerwise, "_rounded", killing)
        with pytest.raises(KeyboardInterrupt):
            quantize(model, [recipe], tmp_path / "cut", text=text)
    (again,) = quantize(model, [recipe], tmp_path / "cut", text=text)
    first, second = (target(name).open(one.path) for one in (made, again))
    for weight in first.architecture.weights():
        np.testing.assert_array_equal(first.weight(weight.name), second.weight(weight.name))
    source = Checkpoint.open(model)
    for weight in source.architecture.weights():
        if not weight.role.is_norm and weight.role is not Role.EMBEDDING:
            true, stored = source.weight(weight.name), first.weight(weight.name)
            assert np.corrcoef(true.reshape(-1), stored.reshape(-1))[0, 1] > 0.9, weight.name


@pytest.mark.parametrize("name", EIGHT)
def test_a_part_that_is_missing_is_named(model, tmp_path, monkeypatch, name):
    pytest.importorskip({"onnx": "onnx_ir", "openvino": "openvino_tokenizers"}[name])
    (made,) = quantize(model, [Recipe(name, quality="balanced")], tmp_path / "out")
    graph = made.path / {"onnx": "model.onnx", "openvino": "openvino_model.xml"}[name]
    content = graph.read_bytes()
    assert b"k_proj" in content
    # The node and its tensors under another name of the same length.
    graph.write_bytes(content.replace(b"k_proj", b"k_prox"))
    with pytest.raises(ArtifactError, match="k_proj"):
        target(name).open(made.path)


def test_the_card_tells_values_from_the_rest_and_how_to_make_it_again(model, tmp_path):
    pytest.importorskip("openvino_tokenizers")
    quantize(model, [Recipe("openvino", quality="balanced", rescaling=False)], tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| qkv, v_proj | 2 | i8 channel |" in card
    assert "| qkv, q_proj | 2 | i4 " in card
    assert "--precision int4 --quality balanced --no-rescaling -o OUT" in card
    made = json.loads((tmp_path / "out" / "phiquant.json").read_text(encoding="utf-8"))
    assert any("values have 8 bits" in note for note in made["plan"]["notes"])
