"""`phiquant recommend`, and `--device` in `plan` and `quantize`."""

import json
import shlex

import pytest

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


def test_nothing_that_fits_is_told_in_full_and_ends_in_4():
    ended = call("recommend", "phi-4", "--device", "raspberry-pi-5-4gb")
    assert ended.code == 4
    assert ended.err.startswith("phiquant: phi-4 does not fit")
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


PI, CARD, PHONE, NPU = "raspberry-pi-5-8gb", "rtx-4090", "iphone-16", "core-ultra-200v"


@pytest.mark.parametrize(
    "words",
    [
        (PI,),
        (PI, "--context", "1000"),
        (PI, "--min-quality", "int8"),
        (PI, "--min-speed", "100"),
        (CARD, "--min-quality", "fp16"),
        (CARD, "--to", "onnx"),
        (CARD, "--to", "onnx", "--min-quality", "int8"),
        (PHONE, "--to", "mlx"),
        (NPU, "--to", "openvino, onnx", "--min-quality", "0.05"),
        (NPU, "--prompt", "64", "--min-speed", "60"),
    ],
    ids=" ".join,
)
def test_the_line_that_is_shown_makes_the_choice(words):
    asked = ("recommend", "Phi-4-mini-instruct", "--device", *words)
    chosen = json.loads(call(*asked, "--json").out)["chosen"]
    assert made_by(call(*asked)) == (chosen["recipe"], chosen["type"], chosen["weights"])


def made_by(shown):
    """The recipe, type and bytes that `plan` gives for the line that `recommend` showed."""
    line = shown.out.partition("Make it: ")[2]
    phiquant, quantize, *words = shlex.split(line)
    assert (phiquant, quantize, words[-2:]) == ("phiquant", "quantize", ["-o", "OUT"])
    words = ["Phi-4-mini-instruct" if word.startswith("microsoft/") else word for word in words]
    planned = call("plan", *words[:-2], "--json")
    assert planned.code == 0, planned.err
    (one,) = json.loads(planned.out)["plans"]
    return one["recipe"], one["plan"]["type"], one["plan"]["nbytes"]


def test_the_line_names_a_device_as_it_was_given(model, tmp_path):
    (folder := tmp_path / "my boards").mkdir()
    path = board(folder)
    asked = ("recommend", model, "--device", path, "--context", "256")
    chosen = json.loads(call(*asked, "--json").out)["chosen"]
    assert made_by(call(*asked)) == (chosen["recipe"], chosen["type"], chosen["weights"])


@pytest.mark.parametrize(
    "words", [("/tree/abc",), ("", "--revision", "abc")], ids=["in the address", "as an option"]
)
def test_the_line_keeps_the_state_of_the_model(words):
    address = f"https://huggingface.co/microsoft/Phi-4-mini-instruct{words[0]}"
    shown = call("recommend", address, "--device", PI, *words[1:])
    line = " ".join(shown.out.partition("Make it: ")[2].split())
    start = "phiquant quantize microsoft/Phi-4-mini-instruct --revision abc --device"
    assert line.startswith(start)


def test_the_line_for_this_machine_does_not_choose_anew(model):
    shown = call("recommend", model, "--device", "this", "--context", "256")
    assert "--device" not in shown.out.partition("Make it: ")[2]


def test_a_least_precision_is_of_bits(model):
    for device in (PI, CARD, PHONE, "macbook-m4-16gb"):
        for least, bits in (("int4", 4), ("int8", 8), ("fp16", 16)):
            words = ("Phi-4-mini-instruct", "--device", device, "--min-quality", least)
            chosen = json.loads(call("recommend", *words, "--json").out)["chosen"]
            assert chosen is None or chosen["bits_per_weight"] > bits - 0.1, chosen["type"]


def test_a_precision_and_a_type_that_contradict_each_other_are_refused(model):
    for precision, type in (("int8", "Q4_K_M"), ("int4", "Q8_0"), ("fp16", "F32")):
        ended = call("plan", model, "--precision", precision, "--type", type)
        assert_refused(ended, 2, f"--precision {precision}", f"--type {type}", "leave one")
    assert call("plan", model, "--precision", "int8", "--type", "Q8_0").code == 0
    two = ("--to", "gguf,mlx", "--precision", "int8")
    planned = json.loads(call("plan", model, *two, "--type", "gguf=Q4_K_M", "--json").out)["plans"]
    assert [one["plan"]["type"] for one in planned] == ["Q4_K_M", "8bit-g64"]
