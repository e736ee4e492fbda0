"""`verify` of tokenizers in the runtimes: what a runtime reads otherwise on rare text is a
limitation where the artifact's tokenizer is right, and a failure where it is not.
"""

import json
import shutil

import pytest

from command_line import call
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import as_model_file, write_tiny_tokenizer

RUNTIMES = {"onnx": "onnxruntime_genai", "openvino": "openvino_genai"}
KINDS = ("sentencepiece", "model file")


def checkpoint(directory, kind):
    tiny = write_tiny_tokenizer(directory, kind="bpe" if kind == "bpe" else "sentencepiece")
    if kind == "model file":
        as_model_file(directory)
    ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    return write_tiny_checkpoint(directory, num_hidden_layers=1, pad_token_id=tiny.eos, **ends)


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A checkpoint without splitting expressions, and its artifacts for both targets."""
    for package in RUNTIMES.values():
        pytest.importorskip(package)
    root = tmp_path_factory.mktemp("made")
    model = checkpoint(root / "model", request.param)
    targets = ",".join(RUNTIMES)
    ended = call("quantize", model, "--to", targets, "--precision", "fp32", "-o", root / "out")
    assert ended.code == 0, ended.err
    return model, root / "out"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "short.txt"
    path.write_text("The quick brown fox jumps over the lazy dog. 1234 = 12 * 3.\n" * 4)
    return path


def checks(artifact, model, text):
    """The exit code of `verify`, and its checks by name."""
    ended = call("verify", artifact, "--against", model, "--text", text, "--windows", "1", "--json")
    return ended.code, {check["name"]: check for check in json.loads(ended.out)["checks"]}


@pytest.mark.parametrize("target", RUNTIMES)
def test_rare_characters_are_a_limitation_of_the_runtime(made, target, text):
    """genai loses NUL, and openvino_tokenizers takes a spelt-out byte token for the byte."""
    model, out = made
    code, outcomes = checks(out / target, model, text)
    assert code == 0, outcomes
    assert outcomes["tokens"]["outcome"] == "limited"
    assert "1 of " in outcomes["tokens"]["finding"]
    assert {"onnx": r"a\x00b", "openvino": "<0x0A>"}[target] in outcomes["tokens"]["finding"]


def test_another_vocabulary_is_no_limitation(made, text, tmp_path):
    model, out = made
    artifact = shutil.copytree(out / "onnx", tmp_path / "onnx")
    (artifact / "phiquant.json").unlink()
    path = artifact / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["c"], vocabulary["d"] = vocabulary["d"], vocabulary["c"]
    path.write_text(json.dumps(document), encoding="utf-8")
    code, outcomes = checks(artifact, model, text)
    assert code == 3
    assert outcomes["tokens"]["outcome"] == "failed"
