"""Importance matrices in the whole flow: what is left behind, what it weighs, who can use it."""

from dataclasses import replace

import numpy as np
import pytest

from command_line import assert_refused, call, files_in, tiny_model
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.calibration.text import shipped_sample
from phiquant.errors import InputError, RequestError
from phiquant.job.making import quantize
from phiquant.job.prospect import plan
from phiquant.phi.checkpoint import Checkpoint
from phiquant.recipe import ImatrixFiles, Recipe
from phiquant.targets.gguf.imatrix import read_imatrix, write_imatrix
from phiquant.targets.importance import ImatrixDataset

TEXT = CalibrationText(sequences=4, length=32)
TARGETS = ("gguf", "mlx", "onnx", "openvino")


def artifacts(directory):
    """The bytes of every file that holds weights, by path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in ("phiquant.json", "README.md")
    }


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def made(request, tmp_path_factory):
    """A model, artifacts of it weighed by a text, and the importance matrix of that text."""
    root = tmp_path_factory.mktemp("imatrix")
    model = tiny_model(root / "model", tie_word_embeddings=request.param)
    recipes = [Recipe(name, quality="balanced") for name in TARGETS]
    files = ImatrixFiles(write=root / "x.gguf")
    quantize(model, recipes, root / "text", text=TEXT, imatrix=files)
    return model, recipes, root


def test_balanced_by_our_matrix_is_balanced_by_its_text(made, tmp_path):
    model, recipes, root = made
    pair = quantize(model, recipes, tmp_path / "out", imatrix=ImatrixFiles(read=root / "x.gguf"))
    expected = artifacts(root / "text")
    assert artifacts(tmp_path / "out") == expected
    for one in pair:
        assert any("Rounding errors are weighed by" in note for note in one.plan.notes)
    quantize(model, [Recipe(name) for name in TARGETS], tmp_path / "fast")
    fast = artifacts(tmp_path / "fast")
    differ = {name.split("/")[0] for name in fast if fast[name] != expected[name]}
    assert differ == set(TARGETS)


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_the_matrix_comes_with_any_quality_and_does_not_change_it(
    made, tmp_path, monkeypatch, quality
):
    monkeypatch.setattr("phiquant.job.layerwise.product_rate", lambda: 1e9)  # measured for seconds
    model, _, root = made
    files = ImatrixFiles(write=tmp_path / "deep" / "x.gguf")
    recipes = [Recipe("gguf", quality=quality)]
    quantize(model, recipes, tmp_path / "with", text=TEXT, imatrix=files)
    text = None if quality == "fast" else TEXT  # which reads none
    quantize(model, recipes, tmp_path / "without", text=text)
    assert artifacts(tmp_path / "with") == artifacts(tmp_path / "without")
    assert (tmp_path / "deep" / "x.gguf").read_bytes() == (root / "x.gguf").read_bytes()


def test_the_older_encoding_weighs_alike_and_has_no_means(made, tmp_path):
    """Four chunks: a power of two, so that not even a last bit is lost."""
    model, recipes, root = made
    files = ImatrixFiles(write=tmp_path / "x.dat")
    quantize(model, recipes[:1], tmp_path / "text", text=TEXT, imatrix=files)
    entries = read_imatrix(root / "x.gguf")
    squares = {name: replace(one, plain=None) for name, one in entries.items()}
    write_imatrix(tmp_path / "squares.gguf", squares, ImatrixDataset("text", TEXT.length))
    for name in ("x.dat", "squares.gguf"):
        files = ImatrixFiles(read=tmp_path / name)
        quantize(model, recipes[:1], tmp_path / "by" / name, imatrix=files)
    old, new = (artifacts(tmp_path / "by" / name) for name in ("x.dat", "squares.gguf"))
    assert old == new != artifacts(tmp_path / "text")


def test_means_are_those_of_the_runtimes_own_pass(made):
    """Of the first layer's inputs, which are the embeddings' norms, by hand."""
    model, _, root = made
    entry = read_imatrix(root / "x.gguf")["blk.0.attn_qkv.weight"]
    assert entry.count == TEXT.sequences * TEXT.length
    checkpoint = Checkpoint.open(model)
    tokens = np.concatenate(shipped_sample(checkpoint.tokenizer, 4, 32).tokens)
    rows = checkpoint.weight("model.embed_tokens.weight")[tokens].astype(np.float64)
    rows /= np.sqrt(np.mean(rows**2, axis=1, keepdims=True) + 1e-5)
    rows *= checkpoint.weight("model.layers.0.input_layernorm.weight")
    assert entry.inputs.squares == pytest.approx(np.mean(rows**2, axis=0), rel=1e-4)


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_a_matrix_serves_balanced_only(made, tmp_path, quality):
    model, _, root = made
    recipes = [Recipe("gguf", quality=quality)]
    with pytest.raises(RequestError, match="balanced"):
        quantize(model, recipes, tmp_path / "out", imatrix=ImatrixFiles(read=root / "x.gguf"))
    assert files_in(tmp_path) == []


def test_a_matrix_and_a_text_at_once_are_refused(made, tmp_path):
    model, recipes, root = made
    text = CalibrationText(root / "text.txt")
    with pytest.raises(RequestError, match="both"):
        quantize(model, recipes, tmp_path / "out", text=text, imatrix=ImatrixFiles(root / "x.gguf"))
    with pytest.raises(RequestError, match="not both"):
        files = ImatrixFiles(root / "x.gguf", tmp_path / "y.gguf")
        quantize(model, recipes, tmp_path / "out", imatrix=files)


def test_a_matrix_of_another_model_is_refused_before_anything_is_made(made, tmp_path):
    _, recipes, root = made
    model = tiny_model(tmp_path / "other", intermediate_size=128)
    with pytest.raises(InputError, match="another model"):
        quantize(model, recipes, tmp_path / "out", imatrix=ImatrixFiles(read=root / "x.gguf"))
    assert not (tmp_path / "out").exists()


def test_a_destination_that_exists_is_refused(made, tmp_path):
    model, _, root = made
    ended = call("quantize", model, "-o", tmp_path / "out", "--imatrix-out", root / "x.gguf")
    assert_refused(ended, 2, "exists already")
    ended = call("quantize", model, "-o", tmp_path / "out", "--imatrix-out", tmp_path / "out")
    assert_refused(ended, 2, "importance matrix too")
    assert files_in(tmp_path) == []


def test_from_the_command_line(made, tmp_path):
    model, _, root = made
    out, matrix = tmp_path / "out", tmp_path / "out" / "x.gguf"
    ended = call(
        "quantize", model, "-o", out, "-q", "--quality", "balanced", "--calibration-size", "4x32",
        "--imatrix-out", matrix,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert matrix.read_bytes() == (root / "x.gguf").read_bytes()
    again = tmp_path / "again"
    ended = call("quantize", model, "-o", again, "-q", "--quality", "balanced", "--imatrix", matrix)
    assert ended.code == 0, ended.err
    assert "weighed by the importance matrix x.gguf" in " ".join(ended.out.split())
    assert (again / "model-Q4_K_M.gguf").read_bytes() == (out / "model-Q4_K_M.gguf").read_bytes()


def test_nothing_is_left_of_a_job_that_fails(made, tmp_path, monkeypatch):
    model, _, _ = made

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("phiquant.job.making.write_records", fail)
    with pytest.raises(KeyboardInterrupt):
        files = ImatrixFiles(write=tmp_path / "x.gguf")
        quantize(model, [Recipe("gguf")], tmp_path / "out", text=TEXT, imatrix=files)
    assert files_in(tmp_path) == []


def test_best_artifacts_of_one_job_are_rescaled_alike(made):
    model, _, _ = made
    recipes = [Recipe(name, quality="best", rescaling=name == "gguf") for name in ("gguf", "mlx")]
    with pytest.raises(RequestError, match="a job of their own"):
        plan(model, recipes, text=TEXT)


def test_the_plan_says_how_much_of_the_text_is_used(made):
    model, _, _ = made
    recipes = [Recipe("gguf", quality="balanced"), Recipe("mlx", quality="best")]
    planned = plan(model, recipes, text=CalibrationText(sequences=40, length=32))
    for one, count in zip(planned.plans, (32, 40), strict=True):
        assert any(f"calibrated on {count} sequences of 32 tokens" in note for note in one.notes)
