"""Refusals that say what to type instead."""

import json
import shutil
from pathlib import Path

import pytest

from command_line import assert_refused, call


def cases(model, made, nowhere):
    """Words → what the sentence must hold."""
    return {
        "a misspelt option": (
            ("plan", model, "--to", "onnx", "--option", "embeding=8"),
            ("provider", "accuracy_level", "embedding", "last_logits"),
        ),
        "an option where there are none": (
            ("plan", model, "--option", "speed=8"),
            ("gguf has none",),
        ),
        "another target's option": (
            ("plan", model, "--to", "gguf", "--provider", "cuda"),
            ("--provider is an option of onnx", "add onnx to --to"),
        ),
        "another target's type": (
            ("plan", model, "--to", "gguf", "--type", "4bit-g64"),
            ("of mlx", "--to mlx"),
        ),
        "a type for a target that is not named": (
            ("plan", model, "--type", "mlx=4bit-g64"),
            ("add mlx to --to",),
        ),
        "a part of a name": (
            ("recommend", "Phi-4-mini", "--device", "rtx-4090"),
            ("did you mean Phi-4-mini-instruct",),
        ),
        "nothing": (("inspect", nowhere), ("found nothing", "a model file", "Hugging Face id")),
        "a folder of artifacts to inspect": (
            ("inspect", made),
            ("holds the artifacts gguf, mlx",),
        ),
        "a folder of artifacts to verify": (
            ("verify", made, "--against", model),
            ("holds the artifacts gguf, mlx",),
        ),
        "a file of weights": (
            ("plan", model / "model.safetensors"),
            (f"give the directory {model}",),
        ),
        "a GGUF artifact": (("plan", made / "gguf"), ("phiquant made of 'tiny-phi'",)),
        "an MLX artifact": (("plan", made / "mlx"), ("phiquant made of 'tiny-phi'",)),
    }


@pytest.mark.parametrize("case", cases(*map(Path, "abc")))
def test_a_refusal_says_what_to_do(case, model, made, tmp_path):
    words, told = cases(model, made[0], tmp_path / "nowhere")[case]
    ended = call(*words)
    assert_refused(ended, 2, *told)
    assert ended.err.count("there is no directory") <= 1


def test_names_of_devices_are_never_cut():
    names = [one["name"] for one in json.loads(call("devices", "--json").out)["devices"]]
    shown = call("devices").out  # at 100 columns
    assert [name for name in names if name not in shown] == []


def test_clean_names_its_folder_in_full(tmp_path, monkeypatch):
    (folder := tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(folder)
    ended = call("clean", "..")
    assert str(folder.parent) in ended.out.replace("\n", "")


def test_a_file_has_the_record_beside_it(model, made, tmp_path):
    artifact = shutil.copytree(made[0] / "gguf", tmp_path / "artifact")
    (file,) = artifact.glob("*.gguf")
    words = ("verify", file, "--against", model, "--windows", "1", "--no-boundary", "-q")
    assert call(*words).code == 0
    data = bytearray(file.read_bytes())
    data[-4] ^= 1  # the least that there is
    file.write_bytes(data)
    ended = call(*words)
    assert ended.code == 3
    assert "changed since they were written" in ended.err


def verified(made, tmp_path, passed):
    artifact = shutil.copytree(made[0] / "gguf", tmp_path / "verified")
    record = json.loads((artifact / "phiquant.json").read_text())
    record["verification"] = {"figures": {"mean": {"value": 0.5}}, "passed": passed}
    (artifact / "phiquant.json").write_text(json.dumps(record))
    return artifact


def test_what_was_measured_of_another_model_is_refused(made, tmp_path):
    words = ("--device", "rtx-4090", "--measured", verified(made, tmp_path, True))
    ended = call("recommend", "Phi-4-mini-instruct", *words)
    assert_refused(ended, 2, "tiny-phi", "--measured takes artifacts of Phi-4-mini-instruct")


def test_what_failed_its_verification_counts_for_nothing(model, made, tmp_path):
    words = ("--device", "rtx-4090", "--context", "64")
    failed = verified(made, tmp_path, False)
    ended = call("recommend", model, *words, "--measured", failed)
    assert_refused(ended, 2, "failed its verification")
