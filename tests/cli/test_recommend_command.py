"""`phiquant recommend`, and `--device` in `plan` and `quantize`."""

import json

from command_line import assert_refused, call, files_in, run

DEVICE = """
[board]
title = "A board"
class = "iot"
memory_gib = 1
usable_gib = {usable}
bandwidth_gbs = 10
engines = ["gguf-cpu-arm", "onnx-cpu"]
source = "its label"
"""


def board(directory, usable=0.9):
    path = directory / "board.toml"
    path.write_text(DEVICE.format(usable=usable))
    return path


def test_a_recommendation_for_people_and_for_machines():
    words = ("recommend", "Phi-4-mini-instruct", "--device", "raspberry-pi-5-8gb")
    shown = call(*words)
    assert shown.code == 0, shown.err
    assert "Choice: gguf on cpu, Q4_K_M" in shown.out
    assert "Make it: phiquant quantize microsoft/Phi-4-mini-instruct --device" in shown.out
    document = json.loads(call(*words, "--json").out)
    assert document["chosen"]["type"] == "Q4_K_M"
    assert f"{document['chosen']['weights']:,} bytes" in shown.out
    assert len(document["candidates"]) > 8


def test_nothing_that_fits_is_an_answer():
    ended = call("recommend", "phi-4", "--device", "raspberry-pi-5-4gb")
    assert ended.code == 0
    assert "Nothing fits as asked. Nearest:" in ended.out
    assert "another Phi: Phi-4-mini-instruct" in ended.out


def test_quantize_carries_the_choice_out(model, tmp_path):
    path = board(tmp_path)
    words = (model, "--device", path, "--context", "256")
    chosen = json.loads(call("recommend", *words, "--json").out)["chosen"]
    planned = json.loads(call("plan", *words, "--json").out)["plans"]
    ended = run("quantize", *words, "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    (made,) = json.loads(ended.out)["artifacts"]
    assert made["recipe"] == chosen["recipe"] == planned[0]["recipe"]
    assert made["plan"]["nbytes"] == chosen["weights"] == planned[0]["plan"]["nbytes"]


def test_targets_and_precision_narrow_the_choice(model, tmp_path):
    path = board(tmp_path)
    ended = call("plan", model, "--device", path, "--to", "onnx", "--precision", "int4", "--json")
    assert ended.code == 0, ended.err
    (one,) = json.loads(ended.out)["plans"]
    assert (one["plan"]["target"], one["plan"]["type"]) == ("onnx", "int4-b32")
    assert_refused(call("plan", model, "--device", path, "--type", "Q4_0"), 2, "--device chooses")
    assert_refused(call("plan", model, "--device", path, "--to", "tflite"), 2, "tflite")


def test_a_device_that_is_too_small_ends_in_4(model, tmp_path):
    path = board(tmp_path, usable=0.001)
    ended = call("quantize", model, "--device", path, "-o", tmp_path / "out", "-q")
    assert_refused(ended, 4, "does not fit A board")
    assert files_in(tmp_path) == ["board.toml"]


def test_words_that_mean_nothing(model):
    assert_refused(call("recommend", model, "--device", "toaster"), 2, "toaster", "devices")
    for option, value in (("--min-quality", "good"), ("--context", "0"), ("--prompt", "-1")):
        ended = call("recommend", model, "--device", "rtx-4090", option, value)
        assert_refused(ended, 2, option)
