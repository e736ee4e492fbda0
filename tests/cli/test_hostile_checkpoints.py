"""Checkpoints by a stranger: code that comes with them is never run, by no command."""

import json
import pickle
import shutil

import pytest

from command_line import assert_refused, call, run
from sentinels import Sentinel

CODE = {
    "AutoConfig": "own_code.Own",
    "AutoModelForCausalLM": "own_code.Own",
    "AutoTokenizer": ["own_code.Own", "own_code.Own"],
}


@pytest.fixture
def sentinel(tmp_path):
    return Sentinel(tmp_path)


@pytest.fixture
def stranger(model, sentinel, tmp_path):
    """A checkpoint that names code in every way that there is, and brings it."""
    path = shutil.copytree(model, tmp_path / "stranger")
    for name in ("config.json", "tokenizer_config.json"):
        document = json.loads((path / name).read_text()) if (path / name).is_file() else {}
        document |= {"auto_map": CODE, "trust_remote_code": True, "custom_pipelines": CODE}
        if name == "config.json":
            document["model_file"] = "own_code.py"
        (path / name).write_text(json.dumps(document))
    for name in ("own_code", "modeling_phi3", "configuration_phi3", "json", "numpy", "jinja2"):
        sentinel.module(path / f"{name}.py")
    (path / "custom_generate").mkdir()
    sentinel.module(path / "custom_generate" / "generate.py")
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(sentinel))
    return path


def test_the_sentinel_fires_where_it_is_read(sentinel):
    pickle.loads(pickle.dumps(sentinel))
    assert sentinel.fired


@pytest.mark.parametrize("words", [["inspect"], ["plan", "--to", "gguf,mlx,onnx,openvino"]])
def test_its_code_is_not_run_when_it_is_looked_at(stranger, sentinel, words):
    ended = run(words[0], stranger, *words[1:])
    assert ended.code == 0, ended
    assert not sentinel.fired


def test_its_code_is_not_run_when_it_is_quantized_or_compared_with(stranger, sentinel, tmp_path):
    ended = call(
        "quantize", stranger, "--to", "gguf,mlx,onnx,openvino", "-o", tmp_path / "out", "-q"
    )
    assert ended.code == 0, ended
    made = [path.name for path in (tmp_path / "out").rglob("*.py")]
    assert not made, "no code is copied into an artifact"
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. 1 = 1.\n" * 20)
    words = ("--against", stranger, "--text", tmp_path / "text.txt", "--windows", "1", "-q")
    assert call("verify", tmp_path / "out" / "gguf", *words).code == 0
    assert not sentinel.fired


def test_pickled_weights_alone_are_refused_unread(stranger, sentinel, tmp_path):
    (stranger / "model.safetensors").unlink()
    ended = call("quantize", stranger, "-o", tmp_path / "out", "-q")
    assert_refused(ended, 2, "pytorch_model.bin")
    assert not sentinel.fired
