"""`phiquant plan`, and what `quantize` says and checks before it begins."""

import json
import re
import shutil
from collections import namedtuple

import pytest

from command_line import assert_refused, call, files_in, run
from phiquant.targets.streamed_file import StreamedFile

Usage = namedtuple("Usage", "total used free")


def test_a_plan_is_what_quantize_does(model, made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = call("plan", model, "--to", "gguf,mlx", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    plans = {one["plan"]["target"]: one["plan"] for one in document["plans"]}
    for one in made[1]["artifacts"]:
        assert plans[one["plan"]["target"]]["rows"] == one["plan"]["rows"]
        assert plans[one["plan"]["target"]]["nbytes"] == one["plan"]["nbytes"]
    assert document["weights_read"]
    assert document["forecast"]["disk"] > sum(one["nbytes"] for one in plans.values())
    assert 0 < document["forecast"]["seconds"] < 60
    assert files_in(tmp_path) == []


def test_a_plan_takes_the_options_of_quantize(model):
    ended = call(
        "plan", model, "--to", "onnx,openvino", "--type", "onnx=int8-b64-sym", "--provider", "cuda",
        "--ov-device", "NPU", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    recipes = [one["recipe"] for one in json.loads(ended.out)["plans"]]
    assert recipes[0]["options"] == {"provider": "cuda"}
    assert recipes[1]["options"] == {"ov_device": "NPU"}
    assert_refused(call("plan", model, "--precision", "int5"), 2, "int5")


def test_rows_and_groups_for_people(model):
    short, long = call("plan", model, "-q"), call("plan", model, "--rows", "-q")
    assert "2 " in short.out
    assert "blk.1.ffn_down" not in short.out
    assert "blk.1.ffn_down" in long.out
    for ended in (short, long):
        assert (ended.code, ended.err) == (0, "")
        assert "bytes of tensors" in ended.out
        assert "memory at most" in ended.out


def test_a_configuration_is_enough_for_a_plan_and_not_to_quantize(model, tmp_path):
    (tmp_path / "bare").mkdir()
    shutil.copy(model / "config.json", tmp_path / "bare")
    ended = call("plan", tmp_path / "bare")
    assert ended.code == 0, ended.err
    assert "not read" in ended.out
    assert_refused(call("quantize", tmp_path / "bare", "-o", tmp_path / "out", "-q"), 2, "safetens")


def test_quantize_tells_its_plan_before_it_begins(model, tmp_path, monkeypatch):
    monkeypatch.setattr(StreamedFile, "__init__", lambda *_: pytest.fail("stop here"))
    with pytest.raises(pytest.fail.Exception):
        monkeypatch.setenv("PHIQUANT_TRACEBACK", "1")
        call("quantize", model, "-o", tmp_path / "out")
    ended = run("quantize", model, "-o", tmp_path / "real")
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    assert lines[0].startswith("gguf Q4_K_M")
    assert lines[-1].strip().endswith("bits per weight")
    assert ended.out.count("gguf Q4_K_M") == 1


def test_too_little_disk_says_what_would_fit(model, tmp_path, monkeypatch):
    monkeypatch.setattr("phiquant.job.forecast.SPARE", 0)
    monkeypatch.setattr("phiquant.job.room.SPARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 600_000))
    monkeypatch.setattr(StreamedFile, "__init__", lambda *_: pytest.fail("wrote something"))
    words = ("--to", "gguf,mlx", "--precision", "fp32", "-o", tmp_path / "out", "-q")
    for command in ("quantize", "plan"):
        ended = call(command, model, *words)
        assert_refused(ended, 4, "--precision int4 (0.00 GB)", "would fit")
        assert "fp16" not in ended.err
    assert files_in(tmp_path) == []


def test_too_little_memory_is_seen_before_the_first_byte(model, tmp_path, monkeypatch):
    monkeypatch.setattr("phiquant.job.room.available_memory", lambda: 50 << 20)
    monkeypatch.setattr(StreamedFile, "__init__", lambda *_: pytest.fail("wrote something"))
    ended = call("quantize", model, "-o", tmp_path / "out", "-q")
    assert_refused(ended, 4, "of memory", "cores")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("quality", ["balanced", "best"])
def test_a_time_without_the_calibration_says_so(model, tmp_path, quality):
    """That of `best` is in it where the weights are there; that of `balanced` always."""
    small = ("--quality", quality, "--calibration-size", "2x48", "-q")
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    said = "the calibration, which is not in these figures"
    for checkpoint, left_out in ((bare, quality == "best"), (model, False)):
        told = call("plan", checkpoint, *small)
        assert told.code == 0, told.err
        assert (said in " ".join(told.out.split())) is left_out


WITHOUT_EFFECT = {
    "a text that nobody reads": (("--calibration", "config.json"), "--quality fast"),
    "a size of such a text": (("--calibration-size", "4x32"), "--quality fast"),
    "scales that are kept anyway": (
        ("--no-rescaling", "--quality", "data-free"),
        "--no-rescaling",
    ),
    "more context than the model has": (("--context", "100000"), "--context"),
    "that for another target": (("--to", "onnx", "--context", "100000"), "--context"),
}


@pytest.mark.parametrize("case", WITHOUT_EFFECT)
def test_what_would_have_no_effect_is_refused(case, model, monkeypatch):
    monkeypatch.chdir(model)
    words, told = WITHOUT_EFFECT[case]
    assert_refused(call("plan", model, *words, "-q"), 2, told)


@pytest.mark.parametrize("target", ["gguf", "mlx", "onnx", "openvino"])
@pytest.mark.parametrize(
    "words", [("--max-size", "10kB"), ("--bits-per-weight", "1.5"), ("--bits-per-weight", "100")]
)
def test_a_size_out_of_reach_is_refused_before_weights_are_read(target, words, model, tmp_path):
    shutil.copy(model / "config.json", tmp_path)  # and no weights
    small = call("plan", tmp_path, "--to", target, *words)
    assert_refused(small, 2, "at most 32" if "100" in words else "needs at least")


@pytest.mark.parametrize("target", ["gguf", "mlx", "onnx", "openvino"])
def test_the_least_size_is_the_least_that_is_made(target, model):
    words = ("plan", model, "--to", target, "--json", "-q")
    refused = call(*words, "--max-size", "10kB")
    least = int(re.search(r"\((\d+) bytes\)", refused.err)[1])
    assert_refused(call(*words[:-2], "--max-size", least - 1), 2, str(least))
    ended = call(*words, "--max-size", least)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["plans"][0]["plan"]["nbytes"] <= least
