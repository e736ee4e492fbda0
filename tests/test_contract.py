"""The public functions, called wrongly in every way that a type checker would let pass."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import phiquant
from command_line import tiny_model
from phiquant import (
    Budget,
    CalibrationText,
    EvaluationText,
    ImatrixFiles,
    InputError,
    PhiquantError,
    Recipe,
    ReferenceFigures,
    RequestError,
    Settings,
    Wish,
    carry_out,
    inspect,
    plan,
    quantize,
    recommend,
    verify,
)
from phiquant.devices.table import find_device
from phiquant.phi.checkpoint import Checkpoint
from phiquant.targets.table import MODULES, targets

NAN = math.nan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("contract") / "tiny-phi")


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    (made,) = quantize(model, Recipe("mlx"), tmp_path_factory.mktemp("made") / "out")
    return made.path


VALUES = {
    "a target that is none": (lambda: Recipe("llama"), "target"),
    "an empty target": (lambda: Recipe(""), "target"),
    "a precision that is none": (lambda: Recipe("gguf", "int3"), "precision"),
    "a precision in capitals": (lambda: Recipe("mlx", "INT4"), "precision"),
    "a quality in capitals": (lambda: Recipe("gguf", quality="Best"), "quality"),
    "no quality": (lambda: Recipe("gguf", quality=""), "quality"),
    "no context": (lambda: Recipe("mlx", context=0), "context"),
    "less than no context": (lambda: Recipe("onnx", context=-4096), "context"),
    "an empty type": (lambda: Recipe("gguf", type=""), "type"),
    "another target's type": (lambda: Recipe("mlx", type="Q4_K_M"), "target=gguf"),
    "another target's option": (lambda: Recipe("gguf", options={"ratio": 1}), "ratio"),
    "a doubled option": (lambda: Recipe("onnx", options=[("qdq", True), ("qdq", True)]), "qdq"),
    "a provider that is none": (lambda: Recipe("onnx", options={"provider": "tpu"}), "provider"),
    "a flag that is neither": (lambda: Recipe("onnx", options={"qdq": "maybe"}), "qdq"),
    "a level beyond": (lambda: Recipe("onnx", options={"accuracy_level": 5}), "accuracy_level"),
    "a device that is none": (
        lambda: Recipe("openvino", options={"ov_device": "TPU"}),
        "ov_device",
    ),
    "a ratio beyond 1": (lambda: Recipe("openvino", options={"ratio": 1.5}), "ratio"),
    "a ratio that is no number": (lambda: Recipe("openvino", options={"ratio": NAN}), "ratio"),
    "a ratio of 8 bits": (lambda: Recipe("openvino", "int8", options={"ratio": 0.5}), "ratio"),
    "an NPU's type": (
        lambda: Recipe("openvino", type="int4-asym-g64", options={"ov_device": "NPU"}),
        "type",
    ),
    "FP32 on a GPU": (
        lambda: Recipe("onnx", "fp32", options={"provider": "cuda"}),
        "precision=fp16",
    ),
    "a type of another precision": (lambda: Recipe("gguf", "int8", type="Q4_K_M"), "type=Q4_K_M"),
    "four bits that are said, and eight": (
        lambda: Recipe("gguf", "int4", type="Q8_0"),
        "type=Q8_0",
    ),
    "scales that are kept anyway": (
        lambda: Recipe("gguf", quality="data-free", rescaling=False),
        "rescaling",
    ),
    "six bits as eight": (lambda: Recipe("gguf", "int8", type="Q6_K"), "6 bits"),
    "floats of two sizes": (lambda: Recipe("mlx", "fp32", type="bf16"), "precision=fp32"),
    "a type and a budget": (lambda: Recipe("gguf", type="Q6_K", budget=Budget(max_kl=0.1)), "type"),
    "floats and a budget": (lambda: Recipe("gguf", "fp16", budget=Budget(max_kl=1)), "precision"),
    "a ratio and a budget": (
        lambda: Recipe("openvino", options={"ratio": 0.5}, budget=Budget(max_kl=0.1)),
        "ratio",
    ),
    "no budget": (Budget, "max_bytes"),
    "two budgets": (lambda: Budget(bits_per_weight=4, max_kl=0.1), "max_bytes"),
    "a budget of nothing": (lambda: Budget(max_bytes=0), "max_bytes"),
    "a budget of no number": (lambda: Budget(max_kl=NAN), "max_kl"),
    "a budget without end": (lambda: Budget(bits_per_weight=math.inf), "bits_per_weight"),
    "no sequences": (lambda: CalibrationText(sequences=0), "sequences"),
    "sequences of a token": (lambda: CalibrationText(length=1), "length"),
    "no windows": (lambda: Settings(windows=0), "windows"),
    "windows of a token": (lambda: Settings(window=1), "window"),
    "a limit below 0": (lambda: Settings(max_kl=-0.1), "max_kl"),
    "a limit that is no number": (lambda: Settings(max_kl=NAN), "max_kl"),
    "an answer of nothing": (lambda: Settings(answer=0), "answer"),
    "a wish for no context": (lambda: Wish(context=0), "context"),
    "a wish for no prompt": (lambda: Wish(prompt=-1), "prompt"),
    "a wish for a precision that is none": (lambda: Wish(precision="int2"), "precision"),
    "a wish for a loss of no number": (lambda: Wish(max_loss=NAN), "max_loss"),
    "a wish for endless speed": (lambda: Wish(min_speed=math.inf), "min_speed"),
    "a wish for a target that is none": (lambda: Wish(targets=("gguf", "tflite")), "target"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_is_valid_or_not_there_at_all(case):
    make, field = VALUES[case]
    with pytest.raises(RequestError) as refused:
        make()
    assert field in str(refused.value)
    assert " --" not in str(refused.value)  # options are the command line's


def calls(model, artifact, new, missing):
    """Name → a call that must be refused, and a word of its message."""
    two = [Recipe("gguf"), Recipe("gguf", "int8")]
    best = [Recipe("gguf", quality="best"), Recipe("mlx", quality="best", rescaling=False)]
    text, matrix = CalibrationText(path=missing), ImatrixFiles(read=missing)
    balanced = Recipe("gguf", quality="balanced")
    return {
        "no recipe": (lambda: quantize(model, [], new), "none"),
        "a target twice": (lambda: quantize(model, two, new), "gguf, gguf"),
        "two networks": (lambda: quantize(model, best, new), "re-scaled"),
        "a destination that is there": (lambda: quantize(model, two[:1], model), "exists"),
        "a destination below a file": (
            lambda: quantize(model, two[0], model / "config.json" / "out"),
            "config.json",
        ),
        "a model that is none": (lambda: quantize(str(missing), two[0], new), str(missing)),
        "an empty model": (lambda: quantize("", two[0], new), ""),
        "a file as the model": (lambda: plan(model / "config.json", two[0]), "config.json"),
        "a text that is none": (lambda: quantize(model, balanced, new, text=text), "text.path"),
        "a matrix that is none": (lambda: plan(model, balanced, imatrix=matrix), "imatrix.read"),
        "a matrix for nothing": (
            lambda: plan(model, two[0], imatrix=ImatrixFiles(read=artifact / "config.json")),
            "quality=balanced",
        ),
        "a matrix in and out": (
            lambda: plan(model, balanced, imatrix=ImatrixFiles(model, model)),
            "imatrix.write",
        ),
        "a matrix onto the artifact": (
            lambda: quantize(model, balanced, new, imatrix=ImatrixFiles(write=new)),
            "importance matrix",
        ),
        "more context than the model has": (
            lambda: plan(model, Recipe("mlx", context=10**6)),
            "context",
        ),
        "a device that is none": (lambda: recommend(model, "amiga"), "amiga"),
        "a device file that is none": (lambda: recommend(model, f"{missing}.toml"), str(missing)),
        "an artifact that was not verified": (
            lambda: recommend(model, "this", measured=[artifact]),
            str(artifact),
        ),
        "an adapter that is none": (
            lambda: quantize(model, two[0], new, adapter=missing),
            str(missing),
        ),
        "a model as the adapter": (
            lambda: plan(model, two[0], adapter=str(model)),
            "adapter_config.json",
        ),
        "an adapter of a number": (lambda: plan(model, two[0], adapter=7), "adapter"),
        "an adapter over what is open, to be measured": (
            lambda: ReferenceFigures.measure(Checkpoint.open(model), adapter=model),
            "adapter",
        ),
        "an adapter over what is open": (
            lambda: verify(artifact, Checkpoint.open(model), adapter=model),
            "adapter",
        ),
        "no artifact": (lambda: verify(missing, model), str(missing)),
        "a checkpoint as the artifact": (lambda: verify(model, model), str(model)),
        "no checkpoint": (lambda: verify(artifact, str(missing)), str(missing)),
        "nothing to inspect": (lambda: inspect(missing), str(missing)),
        "a file of no kind": (lambda: inspect(model / "config.json"), "config.json"),
    }


CALLS = list(calls(*map(Path, "abcd")))


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_is_refused_in_words(case, model, artifact, tmp_path):
    wrong, word = calls(model, artifact, tmp_path / "new", tmp_path / "missing")[case]
    with pytest.raises(PhiquantError) as refused:
        wrong()
    assert word in str(refused.value)
    assert " --" not in str(refused.value).replace("phiquant verify", "").replace("--against", "")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_paths_may_be_strings(kind, model, tmp_path):
    (made,) = quantize(kind(model), Recipe("mlx"), kind(tmp_path / "out"))
    assert made.path == tmp_path / "out"
    assert plan(kind(model), [made.recipe]).plans[0] == made.plan
    recorded = inspect(kind(made.path)).record.recipe
    assert recorded | json.loads(json.dumps(made.recipe.as_json())) == recorded
    assert inspect(kind(model)).format == "checkpoint"
    assert recommend(kind(model), "raspberry-pi-5-8gb").chosen is not None
    measured = verify(kind(made.path), kind(model), Settings(windows=1))
    assert measured.against == "tiny-phi"


@pytest.mark.parametrize("one, other", [(1, "1.0"), (0.5, "0.50")])
def test_recipes_that_mean_the_same_are_equal(one, other):
    recipes = [Recipe("openvino", options={"ratio": value}) for value in (one, other)]
    assert recipes[0] == recipes[1]
    assert recipes[0].form == recipes[1].form
    assert recipes[0].as_json() == recipes[1].as_json()


def kinds(model, artifact, new):
    """A call with a value of another kind → the parameter, and a word of the remedy."""
    gguf, device, pi = Recipe("gguf"), find_device("raspberry-pi-5-8gb"), "raspberry-pi-5-8gb"
    return {
        "a name as the recipe": (lambda: plan(model, "gguf"), "recipes", "Recipe("),
        "names as the recipes": (lambda: plan(model, ["gguf", "mlx"]), "recipes", "Recipe("),
        "a name as what to make": (lambda: quantize(model, "gguf", new), "recipes", "Recipe("),
        "swapped arguments": (lambda: quantize(model, new, gguf), "output", "Path"),
        "the recipe first": (lambda: plan(gguf, model), "model", "Path"),
        "no model": (lambda: plan(None, gguf), "model", "Path"),
        "no recipes": (lambda: plan(model, None), "recipes", "Recipe("),
        "a text's name": (
            lambda: quantize(model, gguf, new, text="f.txt"),
            "text",
            "CalibrationText(path)",
        ),
        "a matrix's name": (
            lambda: plan(model, gguf, imatrix="f.gguf"),
            "imatrix",
            "ImatrixFiles(read=path)",
        ),
        "a number as the place": (lambda: quantize(model, gguf, 5), "output", "Path"),
        "a number as the revision": (lambda: plan(model, gguf, revision=5), "revision", "str"),
        "no listener": (lambda: plan(model, gguf, "loudly"), "on_progress", "leave it out"),
        "words to carry out": (lambda: carry_out("x", "y"), "prospect", "`plan`"),
        "windows in quotes": (lambda: Settings(windows="16"), "windows", "int"),
        "a file's name to measure on": (lambda: Settings(text="f.txt"), "text", "EvaluationText("),
        "a flag in words": (lambda: Settings(boundary="no"), "boundary", "False"),
        "a limit in quotes": (lambda: Settings(max_kl="0.1"), "max_kl", "float"),
        "a mapping as settings": (
            lambda: verify(artifact, model, settings={"windows": 1}),
            "settings",
            "Settings(windows=1)",
        ),
        "nothing to verify against": (lambda: verify(artifact, None), "against", "Checkpoint"),
        "a number to verify": (lambda: verify(5, model), "path", "Path"),
        "a device as the context": (lambda: Wish("iphone-16"), "context", "int"),
        "a speed in words": (lambda: Wish(min_speed="fast"), "min_speed", "float"),
        "a word as targets": (lambda: Wish(targets="gguf"), "targets", "str"),
        "a number as the wish": (lambda: recommend(model, pi, 4096), "wish", "Wish(context=4096)"),
        "no device": (lambda: recommend(model, None), "device", "phiquant devices"),
        "a folder as what was measured": (
            lambda: recommend(model, pi, measured="dir"),
            "measured",
            "Path",
        ),
        "options as words": (
            lambda: Recipe("onnx", options=["embedding=8"]),
            "options",
            '{"embedding": 8}',
        ),
        "options as a word": (lambda: Recipe("onnx", options="qdq"), "options", "embedding"),
        "targets of a recipe": (lambda: Recipe(["gguf"]), "target", "str"),
        "a budget in words": (lambda: Recipe("gguf", budget="2GB"), "budget", "Budget("),
        "a number to inspect": (lambda: inspect(5), "path", "Path"),
        "a matrix of no place": (lambda: ImatrixFiles(read=5), "read", "Path"),
        "a text of no place": (lambda: CalibrationText(5), "path", "Path"),
        "a text of no words": (lambda: EvaluationText("name", b"words"), "content", "str"),
        "engines by name": (
            lambda: replace(device, engines=("gguf-cpu-arm",)),
            "engines",
            "Engine(",
        ),
        "a class that is none": (lambda: replace(device, kind="phone"), "kind", "mobile"),
    }


@pytest.mark.parametrize("case", list(kinds(*map(Path, "abc"))))
def test_a_value_of_another_kind_is_refused_in_words(case, model, artifact, tmp_path):
    wrong, parameter, remedy = kinds(model, artifact, tmp_path / "new")[case]
    with pytest.raises(RequestError) as refused:
        wrong()
    said = str(refused.value)
    assert said.startswith("expected ")
    assert f"`{parameter}`" in said
    assert ", found " in said
    assert remedy in said
    assert not (tmp_path / "new").exists()


def test_what_was_made_can_be_recorded(model, tmp_path):
    (made,) = quantize(model, Recipe("gguf"), tmp_path / "out")
    document = json.loads(json.dumps(made.as_json()))
    assert document["path"] == str(tmp_path / "out")
    assert document["recipe"] == made.recipe.as_json()


def test_a_type_has_its_precision():
    for target in targets():
        for precision, type in target.defaults.items():
            assert Recipe(target.name, precision, type) == Recipe(target.name, type=type)
            assert Recipe(target.name, type=type).precision == precision


def test_an_option_at_its_default_is_none():
    assert Recipe("onnx", options={"provider": "cpu", "qdq": False}) == Recipe("onnx")
    assert Recipe("openvino", options=(("ratio", "1"),)) == Recipe("openvino")


def test_a_recipe_that_was_not_calibrated_cannot_say_so(model, tmp_path):
    for name in MODULES:
        assert Recipe(name).quality == "fast"
    with pytest.raises(InputError):
        quantize(tmp_path, Recipe("gguf", quality="best"), tmp_path / "out")


def test_a_wrong_request_is_refused_before_the_model_is_looked_for(monkeypatch, tmp_path):
    def locate(*words, **options):
        raise AssertionError("the model was looked for")

    monkeypatch.setattr("phiquant.phi.family.locate", locate)
    monkeypatch.setattr("phiquant.job.prospect.locate", locate)
    twice = [Recipe("gguf"), Recipe("gguf")]
    with pytest.raises(RequestError):
        quantize("org/name", twice, tmp_path / "out")
    with pytest.raises(RequestError):
        plan("org/name", twice)
    with pytest.raises(PhiquantError):
        quantize("org/name", Recipe("gguf"), tmp_path)


def test_a_configuration_that_will_not_do_is_refused_before_the_weights_are_fetched(
    monkeypatch, tmp_path, model
):
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    fetched = []
    source = phiquant.phi.source.Source(tmp_path, "name", "org/name", "commit")

    def locate(name, revision=None, wanted=()):
        fetched.append(tuple(wanted))
        return source

    monkeypatch.setattr("phiquant.phi.family.locate", locate)
    monkeypatch.setattr("phiquant.job.prospect.locate", locate)
    with pytest.raises(RequestError, match="context"):
        quantize("org/name", Recipe("mlx", context=10**6), tmp_path / "out")
    assert fetched == [("config.json",)]


def test_a_published_name_can_be_planned():
    prospect = plan("Phi-4-mini-instruct", Recipe("gguf"))
    assert prospect.checkpoint is None
    assert (
        prospect.plans[0].nbytes
        == plan("microsoft/phi-4-mini-instruct", Recipe("gguf")).plans[0].nbytes
    )
    assert "not read" in prospect.plans[0].notes[-1]


def test_every_type_that_a_parameter_needs_is_public():
    from inspect import signature
    from typing import get_args, get_type_hints

    def kinds(hint):
        yield hint
        for inner in get_args(hint):
            yield from kinds(inner)

    for name in ("quantize", "plan", "verify", "recommend", "inspect", "carry_out"):
        function = getattr(phiquant, name)
        for parameter, hint in get_type_hints(function).items():
            assert parameter == "return" or parameter in signature(function).parameters
            for kind in kinds(hint):
                home = getattr(kind, "__module__", "")
                if isinstance(kind, type) and home.startswith("phiquant."):
                    assert kind.__name__ in phiquant.__all__, (name, parameter, kind)
