"""Budgets from the request to the artifact's bytes and its divergence."""

import json

import numpy as np
import pytest

from command_line import tiny_model
from phiquant.calibration.analysis import WINDOW, analysis_windows
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.input_sums import InputSums
from phiquant.calibration.text import glance_of, shipped_sample
from phiquant.errors import InputError, RequestError
from phiquant.job.budgets import (
    HELD_BACK,
    Evaluation,
    RoundedWeights,
    allocate,
    analyse_for,
    by_rows,
    glanced,
    offers_for,
    within_budgets,
)
from phiquant.job.evidence import GLANCE
from phiquant.job.making import quantize
from phiquant.job.order import order
from phiquant.job.prospect import prepare
from phiquant.job.protection import plan_of
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.phi.survey import survey
from phiquant.planning.budget import Budget
from phiquant.quantization.feedback.means import encode_for
from phiquant.recipe import Recipe
from phiquant.targets.table import MODULES, target

WIDTHS = {"hidden_size": 256, "intermediate_size": 512}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("budgets") / "tiny-phi", **WIDTHS)


@pytest.fixture(scope="module")
def analysed(model):
    source = Checkpoint.open(model)
    sequences = analysis_windows(source.architecture) + HELD_BACK
    sample = shipped_sample(source.tokenizer, sequences, 128)
    return analyse_for(source, survey(source), sample.tokens)


def needed(name):
    package = {"gguf": "gguf", "onnx": "onnx_ir", "openvino": "openvino_tokenizers"}.get(name)
    if package:
        pytest.importorskip(package)


@pytest.mark.parametrize("name", MODULES)
def test_a_size_is_kept_by_what_is_on_the_disk(model, tmp_path, name):
    needed(name)
    size = 1_000_000
    (made,) = quantize(model, [Recipe(name, budget=Budget(max_bytes=size))], tmp_path / "out")
    assert 0.95 * size < made.plan.nbytes <= size
    artifact = target(name).open(made.path)
    assert sum(one.nbytes for one in artifact.entries()) <= made.plan.nbytes
    assert len(made.plan.grids) > 2
    record = json.loads((made.path / "phiquant.json").read_text())
    assert record["recipe"]["budget"] == {
        "bits_per_weight": None, "max_bytes": size, "max_kl": None,
    }  # fmt: skip
    assert any("bits allocated" in note for note in record["plan"]["notes"])
    matrices = [row for row in made.plan.rows if row.role and not row.role.is_norm]
    assert all(" bits: " in row.reason for row in matrices)


@pytest.mark.parametrize("name", MODULES)
def test_what_is_evaluated_is_what_is_written(model, analysed, tmp_path, name):
    needed(name)
    source, recipe = Checkpoint.open(model), Recipe(name, budget=Budget(bits_per_weight=5.5))
    (made,) = quantize(model, [recipe], tmp_path / "out")
    assert made.plan.bits_per_weight <= 5.5
    artifact, seen = target(name).open(made.path), looked_at(source, analysed).rescaled()
    rounded = RoundedWeights(seen.source, recipe, made.plan, seen.inputs)
    for weight in source.architecture.weights():
        np.testing.assert_array_equal(artifact.weight(weight.name), rounded.weight(weight.name))


def looked_at(source, analysed):
    """What was analysed, to be rounded as `fast` does it."""
    return glanced(analysed, glance_of(source.tokenizer, *GLANCE).tokens)


def test_balanced_quality_is_weighed_and_so_evaluated(model, analysed):
    blind = Recipe("gguf", budget=Budget(max_kl=0.02), quality="data-free")
    plan = target("gguf").plan(analysed.source.architecture, analysed.survey, blind.form)
    balanced = Recipe("gguf", budget=Budget(max_kl=0.02), quality="balanced")
    offers = [offers_for(recipe, plan, analysed) for recipe in (blind, balanced)]
    totals = [sum(one.effect for offered in each.values() for one in offered) for each in offers]
    assert totals[1] < totals[0]
    rounded = by_rows(analysed)(balanced, plan)
    row = next(row for row in plan.rows if row.role == "down")
    weights, grid = analysed.source.weight(row.source), target("gguf").grids[row.grid]
    parts = encode_for(grid, weights, analysed.analysis.inputs[row.source])
    np.testing.assert_array_equal(rounded.weight(row.source), grid.decode(parts, row.shape[1]))


def test_a_ratio_of_the_best_quality_goes_by_what_is_measured(model):
    source = Checkpoint.open(model)
    surveyed, text = survey(source), CalibrationText()
    recipes = [
        Recipe("openvino", options=(("ratio", "0.5"),), quality=quality)
        for quality in ("fast", "best")
    ]
    plans = [target("openvino").plan(source.architecture, surveyed, one.form) for one in recipes]
    asked = list(zip(recipes, plans, strict=True))
    chosen = within_budgets(source, asked, surveyed, text)
    assert chosen[0] == plans[0]
    measured = analyse_for(
        source, surveyed, shipped_sample(source.tokenizer, 4 + HELD_BACK, 128).tokens
    )
    without = measured.measured(values=False)
    assert chosen[1] == plan_of(recipes[1], source.architecture, without)
    assert len(without.sensitivities) == 2 + 4 * source.architecture.layers
    for name, nats in measured.measured().sensitivities.items():
        values = measured.analysis.sensitivities.get(name.replace("qkv_proj", "v_proj"))
        assert (nats > without.sensitivities[name]) == name.endswith("qkv_proj.weight")
        if name.endswith("qkv_proj.weight"):
            assert nats == pytest.approx(without.sensitivities[name] + values.divergence)
    assert within_budgets(source, asked[:1], surveyed, text) == (plans[0],)


def test_a_divergence_holds_on_the_text_held_back(model, analysed, tmp_path):
    recipe = Recipe("gguf", budget=Budget(max_kl=0.01))
    (made,) = quantize(model, recipe, tmp_path / "out")
    windows = list(analysed.held_back)
    assert len(windows) == HELD_BACK

    def log_shares(source):
        logits = [Reference(source).logits(window).astype(np.float64) for window in windows]
        logits = np.concatenate(logits)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    left = log_shares(analysed.source)
    right = log_shares(target("gguf").open(made.path))
    nats = float((np.exp(left) * (left - right)).sum(axis=1).mean())
    assert 0.005 < nats <= 0.01
    assert any(f"{nats:.3g} measured on text held back" in note for note in made.plan.notes)


def test_a_plan_for_best_says_by_what_weights_it_was_checked(analysed):
    recipe = Recipe("gguf", quality="best", budget=Budget(bits_per_weight=5.0))
    plan = target("gguf").plan(analysed.source.architecture, analysed.survey, recipe.form)
    allocation = allocate(recipe, plan, analysed)
    rescaled = analysed.rescaled()
    nats = Evaluation(rescaled.source, rescaled.held_back)(by_rows(rescaled)(recipe, allocation))
    measured = f"{nats:.3g} measured on text held back, rounded as balanced"
    assert measured in allocation.notes[-1]


def test_a_text_of_one_window_is_refused(model, tmp_path):
    source, file = Checkpoint.open(model), tmp_path / "short.txt"
    words = "One window of this and no more. " * 20
    while len(source.tokenizer.encode(words)) >= 2 * WINDOW - 2:
        words = words[:-32]
    file.write_text(words)
    recipe = Recipe("gguf", budget=Budget(bits_per_weight=5.0))
    with pytest.raises(InputError, match="at least two windows of 128 tokens"):
        prepare(model, order(recipe, CalibrationText(file)))


def test_more_room_measures_better(analysed):
    """Not only predicted: the real divergence falls along a row of sizes."""
    evaluation, measured = Evaluation(analysed.source, analysed.held_back), []
    for bits in (3.0, 4.0, 5.0, 6.5, 9.0):
        recipe = Recipe("mlx", quality="data-free", budget=Budget(bits_per_weight=bits))
        plan = target("mlx").plan(analysed.source.architecture, analysed.survey, recipe.form)
        allocation = allocate(recipe, plan, analysed)
        measured.append(evaluation(RoundedWeights(analysed.source, recipe, allocation)))
        assert f"{measured[-1]:.3g} measured on text held back" in allocation.notes[-1]
    assert measured == sorted(measured, reverse=True)
    assert measured[0] > 20 * measured[-1]


def test_allocation_beats_one_grid_for_all(analysed):
    evaluation = Evaluation(analysed.source, analysed.held_back)
    uniform = Recipe("mlx", type="4bit-g64")
    plan = target("mlx").plan(analysed.source.architecture, analysed.survey, uniform.form)
    recipe = Recipe("mlx", budget=Budget(max_bytes=plan.nbytes))
    allocation = allocate(recipe, plan, analysed)
    assert allocation.nbytes <= plan.nbytes
    before = evaluation(RoundedWeights(analysed.source, uniform, plan))
    assert evaluation(RoundedWeights(analysed.source, recipe, allocation)) < 0.9 * before


def test_every_matrix_is_offered_every_choice(analysed):
    recipe = Recipe("gguf")
    plan = target("gguf").plan(analysed.source.architecture, analysed.survey, recipe.form)
    offers = offers_for(recipe, plan, analysed)
    assert offers.keys() == {row.output for row in plan.rows if not row.role.is_norm}
    for offered in offers.values():
        effects = {one.row.grid: one.effect for one in offered}
        assert effects["F16"] < effects["Q8_0"] < effects["Q5_K"] < effects["Q3_K"]
        assert effects["Q5_1"] < effects["Q5_0"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "Q4_K_M"}, "leave out `type`"),
        ({"precision": "fp16"}, "leave out `precision`"),
        ({"target": "openvino", "options": (("ratio", "0.5"),)}, "leave out `ratio`"),
    ],
)
def test_a_budget_and_a_format_contradict_each_other(changes, words):
    with pytest.raises(RequestError, match=words):
        Recipe(**({"target": "gguf", "budget": Budget(max_kl=0.1)} | changes))


@pytest.mark.parametrize(
    "given", [{}, {"max_bytes": 5, "max_kl": 0.1}, {"max_kl": 0.0}, {"max_kl": float("nan")}]
)
def test_a_budget_is_one_positive_number(given):
    with pytest.raises(RequestError):
        Budget(**given)


def test_a_rescaled_model_is_the_same_network_with_other_choices(analysed):
    rescaled = analysed.rescaled()
    windows = analysed.held_back
    assert Evaluation(analysed.source, windows)(rescaled.source) < 1e-6
    logits = []
    for source in (analysed.source, rescaled.source):
        sums = InputSums()
        list(sums.gather(source, windows))
        logits.append(sums.inputs())
    for name, before in logits[0].items():
        told = [model.analysis.inputs[name] for model in (analysed, rescaled)]
        scale = told[1].squares / told[0].squares
        np.testing.assert_allclose(logits[1][name].squares, before.squares * scale, rtol=1e-3)
        scale = told[1].means / told[0].means
        atol = 1e-4 * np.sqrt(logits[1][name].squares.max())
        np.testing.assert_allclose(
            logits[1][name].means, before.means * scale, rtol=1e-3, atol=atol
        )
