"""`verify` in llama.cpp and MLX themselves: what quantize makes passes, what is tampered fails.

Every tampering is made in the artifact's own files, and the record with their hashes is removed,
so that the fault must be found by what the artifact does and not by its hash.
"""

import json
import shutil
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from phiquant.evaluation.check import Outcome
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.job.making import quantize
from phiquant.recipe import Recipe
from phiquant.reporting.records import record_verification
from tiny_models import longrope, write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SETTINGS = Settings(window=32, windows=4, answer=4)


def tiny_model(directory, **changes):
    tiny = write_tiny_tokenizer(directory)
    ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    return write_tiny_checkpoint(directory, pad_token_id=tiny.eos, **ends, **changes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint's figures, and artifacts of it for every target."""
    pytest.importorskip("gguf")
    pytest.importorskip("mlx_lm")
    root = tmp_path_factory.mktemp("made")
    model = tiny_model(root / "tiny-phi")
    recipes = [Recipe("gguf", "int8"), Recipe("mlx", "fp32")]
    quantize(model, recipes, root / "made")
    return ReferenceFigures.measure(model, SETTINGS), root / "made"


@pytest.fixture
def artifact(made, tmp_path):
    """A function that gives a copy of an artifact, without its record, to tamper with."""

    def copy(target):
        shutil.copytree(made[1] / target, tmp_path / target)
        (tmp_path / target / "phiquant.json").unlink()
        return tmp_path / target

    return copy


def failures(made, path):
    verification = verify(path, made[0], SETTINGS)
    json.dumps(verification.as_json(), allow_nan=False)
    return {check.name for check in verification.checks if check.failed}


def gguf_file(directory):
    (file,) = directory.glob("*.gguf")
    return file


def replace_bytes(file, old, new):
    """Replace the one place where `old` stands by `new`, which is as long."""
    data = file.read_bytes()
    assert data.count(old) == 1 and len(old) == len(new)
    file.write_bytes(data.replace(old, new))


def string(text):
    """A string as a GGUF header holds it."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


def swap_names(file, one, other):
    """Give each of two tensors the other's name."""
    replace_bytes(file, string(one), string("?" * len(one)))
    replace_bytes(file, string(other), string(one))
    replace_bytes(file, string("?" * len(one)), string(other))


@pytest.mark.parametrize("target", ["gguf", "mlx"])
def test_what_was_made_passes_and_is_recorded(made, target, tmp_path):
    path = tmp_path / target
    shutil.copytree(made[1] / target, path)
    verification = verify(path, made[0], SETTINGS)
    assert verification.passed, verification.reasons
    assert {check.name for check in verification.checks} >= {
        "files",
        "tensors",
        "tokens",
        "divergence",
    }
    assert verification.runtime and verification.figures.mean.value < 1e-2
    assert record_verification(path, verification)
    recorded = json.loads((path / "phiquant.json").read_text())["verification"]
    assert recorded["figures"]["mean"]["value"] == verification.figures.mean.value
    assert "The verification passed" in (path / "README.md").read_text()
    again = verify(path, made[0], SETTINGS)
    assert again.passed, "recording the figures must not change what is verified"


@pytest.mark.parametrize("target", ["gguf", "mlx"])
def test_one_changed_byte_fails_by_its_hash(made, target, tmp_path):
    path = tmp_path / target
    shutil.copytree(made[1] / target, path)
    file = next(path.glob("*.gguf"), path / "model.safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert "files" in failures(made, path)


def test_gguf_with_a_corrupt_scale_fails(made, artifact):
    path = artifact("gguf")
    file = gguf_file(path)
    data = bytearray(file.read_bytes())
    data[-33] ^= 0x40  # the high byte of the FP16 scale of the last Q8_0 block
    file.write_bytes(data)
    assert "weights" in failures(made, path)


def test_gguf_with_swapped_tensors_fails(made, artifact):
    path = artifact("gguf")
    swap_names(gguf_file(path), "blk.0.ffn_down.weight", "blk.1.ffn_down.weight")
    assert {"weights", "divergence"} <= failures(made, path)


def test_gguf_with_a_missing_tensor_fails(made, artifact):
    path = artifact("gguf")
    replace_bytes(gguf_file(path), string("blk.1.ffn_down.weight"), string("blk.1.ffn_gone.weight"))
    assert {"tensors", "extra tensors"} <= failures(made, path)


def test_gguf_with_another_rotary_base_fails(made, artifact):
    path = artifact("gguf")
    key = string("phi3.rope.freq_base") + struct.pack("<I", 6)
    replace_bytes(gguf_file(path), key + struct.pack("<f", 1e4), key + struct.pack("<f", 50.0))
    assert "metadata" in failures(made, path)


def test_gguf_with_a_wrong_end_fails(made, artifact):
    path = artifact("gguf")
    tokenizer = made[0].tokenizer
    key = string("tokenizer.ggml.eos_token_id") + struct.pack("<I", 4)
    right, wrong = tokenizer.special.eos, int(made[0].windows[0][0])
    replace_bytes(gguf_file(path), key + struct.pack("<I", right), key + struct.pack("<I", wrong))
    assert "stopping rule" in failures(made, path)


def test_gguf_with_swapped_tokens_fails(made, artifact):
    path = artifact("gguf")
    file = gguf_file(path)
    data = file.read_bytes()
    swapped = data.replace(string("c") + string("d"), string("d") + string("c"), 1)
    assert swapped != data
    file.write_bytes(swapped)
    assert failures(made, path) == {"tokens"}


def test_a_truncated_gguf_fails(made, artifact):
    path = artifact("gguf")
    file = gguf_file(path)
    file.write_bytes(file.read_bytes()[:-1000])
    assert failures(made, path) == {"tensors"}


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_mlx(path, change):
    file = path / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "mlx"})


def test_mlx_with_another_rotary_base_fails(made, artifact):
    path = artifact("mlx")
    edit_json(path / "config.json", rope_theta=50.0)
    assert {"metadata", "divergence"} <= failures(made, path)


def test_mlx_with_a_flipped_bit_fails(made, artifact):
    def flip(tensors):
        bits = tensors["model.layers.1.mlp.down_proj.weight"].view(np.uint32)
        bits[3, 5] ^= 1 << 30

    path = artifact("mlx")
    edit_mlx(path, flip)
    assert "weights" in failures(made, path)


def test_mlx_with_swapped_tensors_fails(made, artifact):
    def swap(tensors):
        a, b = (f"model.layers.{layer}.self_attn.qkv_proj.weight" for layer in (0, 1))
        tensors[a], tensors[b] = tensors[b], tensors[a]

    path = artifact("mlx")
    edit_mlx(path, swap)
    assert {"weights", "divergence"} <= failures(made, path)


def test_mlx_with_a_missing_tensor_fails(made, artifact):
    path = artifact("mlx")
    edit_mlx(path, lambda tensors: tensors.pop("model.norm.weight"))
    assert failures(made, path) == {"tensors"}


def test_mlx_with_a_missing_end_fails(made, artifact):
    path = artifact("mlx")
    eos = made[0].tokenizer.special.eos
    for name in ("config.json", "generation_config.json"):
        edit_json(path / name, eos_token_id=[eos])
    assert "stopping rule" in failures(made, path)


def test_mlx_with_swapped_tokens_fails(made, artifact):
    path = artifact("mlx")
    document = json.loads((path / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["c"], vocabulary["d"] = vocabulary["d"], vocabulary["c"]
    (path / "tokenizer.json").write_text(json.dumps(document))
    assert failures(made, path) == {"tokens"}


@pytest.mark.parametrize("target", ["gguf", "mlx"])
def test_longrope_in_the_runtime(target, tmp_path):
    """llama.cpp has both sides (contexts come in steps of 256), mlx_lm the one it was made for."""
    model = tiny_model(
        tmp_path / "model", num_hidden_layers=1, **longrope(16, original=256, maximum=1024)
    )
    quantize(model, [Recipe(target, "fp32")], tmp_path / "made")
    verification = verify(tmp_path / "made", model, SETTINGS)
    assert verification.passed, verification.reasons
    (check,) = (check for check in verification.checks if check.name == "LongRoPE")
    assert check.outcome is (Outcome.PASSED if target == "gguf" else Outcome.LIMITED)


RUNTIMES = {
    "gguf": "gguf",
    "mlx": "mlx_lm",
    "onnx": "onnxruntime_genai",
    "openvino": "openvino_genai",
}
WINDOWED = {"gguf": Outcome.LIMITED, "mlx": Outcome.LIMITED} | dict.fromkeys(
    ("onnx", "openvino"), Outcome.PASSED
)


@pytest.mark.parametrize("target", WINDOWED)
def test_a_sliding_window_in_the_runtime(target, tmp_path):
    """llama.cpp and mlx_lm attend to all tokens, whatever the window."""
    pytest.importorskip(RUNTIMES[target])
    model = tiny_model(tmp_path / "model", num_hidden_layers=1, sliding_window=100)
    quantize(model, [Recipe(target, "fp32")], tmp_path / "made")
    verification = verify(tmp_path / "made", model, SETTINGS)
    assert verification.passed, verification.reasons
    outcomes = {check.name: check.outcome for check in verification.checks}
    assert outcomes["sliding window"] is WINDOWED[target]
    assert outcomes["metadata"] is WINDOWED[target]


def test_an_mlx_artifact_for_long_contexts(tmp_path):
    model = tiny_model(
        tmp_path / "model", num_hidden_layers=1, **longrope(16, original=256, maximum=1024)
    )
    quantize(model, [Recipe("mlx", "fp32", context=1000)], tmp_path / "made")
    verification = verify(tmp_path / "made", model, SETTINGS)
    assert verification.passed, verification.reasons
    (check,) = (check for check in verification.checks if check.name == "LongRoPE")
    assert check.outcome is Outcome.LIMITED
    assert "long factors only" in check.finding
