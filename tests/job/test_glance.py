"""What `fast` looks at beside the weights, and what it makes of it."""

import json
import shlex
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import assert_refused, call, payload, tiny_model
from phiquant.calibration.text import MIXTURE, glance_of
from phiquant.errors import InputError
from phiquant.job.evidence import GLANCE
from phiquant.job.making import quantize
from phiquant.job.prospect import plan
from phiquant.phi.checkpoint import Checkpoint
from phiquant.recipe import Recipe
from phiquant.targets.table import target


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("glance") / "model")


def stages(model, recipes, output):
    seen = []
    made = quantize(model, recipes, output, lambda progress: seen.append(progress.stage))
    return set(seen), made


def test_it_is_a_few_tokens_of_as_many_kinds_of_text(model):
    tokenizer = Checkpoint.open(model).tokenizer
    sample = glance_of(tokenizer, *GLANCE)
    assert [len(tokens) for tokens in sample.tokens] == [GLANCE[1]] * GLANCE[0]
    assert len({tokens.tobytes() for tokens in sample.tokens}) == GLANCE[0]
    assert len(MIXTURE) >= GLANCE[0]
    special = tokenizer.special
    if special.add_bos:
        assert all(tokens[0] == special.bos for tokens in sample.tokens)


def test_a_vocabulary_that_cannot_be_cut_so_is_told_what_to_do(model):
    class Mute:
        special = Checkpoint.open(model).tokenizer.special
        definition = Checkpoint.open(model).tokenizer.definition

        def encode(self, text):
            return []

    with pytest.raises(InputError, match="quality=data-free"):
        glance_of(Mute(), *GLANCE)


def test_integers_are_rounded_by_it_and_floats_are_not(model, tmp_path):
    seen, (made,) = stages(model, Recipe("gguf"), tmp_path / "int4")
    assert "calibrating" in seen
    assert any("calibrated on 8 sequences of 8 tokens" in note for note in made.plan.notes)
    record = json.loads((made.path / "phiquant.json").read_text())["recipe"]
    assert record["quality"] == "fast"
    assert (record["calibration"]["sequences"], record["calibration"]["length"]) == GLANCE
    seen, (made,) = stages(model, Recipe("gguf", "fp16"), tmp_path / "fp16")
    assert "calibrating" not in seen
    assert not any("calibrated" in note for note in made.plan.notes)
    record = json.loads((made.path / "phiquant.json").read_text())["recipe"]
    assert record["calibration"] is None
    assert record["rescaling"] is False


@pytest.mark.parametrize("quality", ["data-free", "fast"])
def test_the_command_on_the_card_makes_the_same_again(model, tmp_path, quality):
    ended = call("quantize", model, "--quality", quality, "-o", tmp_path / "out", "-q")
    assert ended.code == 0, ended.err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in card.splitlines() if line.startswith("phiquant quantize"))
    assert f"--quality {quality}" in line
    assert "--calibration" not in line
    words = shlex.split(line)[1:]
    words[1], words[-1] = str(model), str(tmp_path / "again")
    ended = call(*words, "-q")
    assert ended.code == 0, ended.err
    assert payload(tmp_path / "out") == payload(tmp_path / "again")


def test_scales_stay_where_adapters_need_them(model, tmp_path):
    norm = "model.layers.0.input_layernorm.weight"
    original = Checkpoint.open(model).weight(norm)
    gains = {}
    for name, recipe in {
        "data-free": Recipe("gguf", quality="data-free"),
        "kept": Recipe("gguf", rescaling=False),
        "fast": Recipe("gguf"),
    }.items():
        (made,) = quantize(model, recipe, tmp_path / name)
        gains[name] = target("gguf").open(made.path).weight(norm)
    np.testing.assert_array_equal(gains["data-free"], original)
    np.testing.assert_array_equal(gains["kept"], original)
    assert np.abs(gains["fast"] / original - 1).max() > 0.01


def test_its_time_and_memory_are_announced(model):
    with_glance, without = (
        plan(model, Recipe("gguf", quality=quality)).forecast for quality in ("fast", "data-free")
    )
    assert with_glance.seconds > without.seconds
    assert with_glance.calibration
    assert not without.calibration


def test_what_it_does_not_read_cannot_fail_floats(model, tmp_path, monkeypatch):
    def unreadable(*_):
        raise InputError("no text for this vocabulary")

    monkeypatch.setattr("phiquant.job.evidence.glance_of", unreadable)
    quantize(model, Recipe("gguf", "fp16"), tmp_path / "fp16")
    with pytest.raises(InputError, match="no text"):
        quantize(model, Recipe("gguf"), tmp_path / "int4")


def test_a_plan_without_weights_has_it_and_says_what_it_leaves_out(model, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    fast, best = Recipe("gguf"), Recipe("mlx", quality="best")
    assert plan(bare, fast).forecast.calibration
    assert not plan(bare, [fast, best]).forecast.calibration


def test_a_gain_that_the_network_cannot_be_run_with(tmp_path):
    large = tiny_model(tmp_path / "model")
    checkpoint = Checkpoint.open(large)
    weights = {name: np.array(checkpoint.weight(name)) for name in checkpoint.tensors}
    weights["model.layers.0.input_layernorm.weight"][3] = 20000.0
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    ended = call("quantize", large, "-o", tmp_path / "out", "-q")
    assert_refused(ended, 2, "input_layernorm", "2e+04", "quality data-free")
    ended = call("quantize", large, "--quality", "data-free", "-o", tmp_path / "out", "-q")
    assert ended.code == 0, ended.err
