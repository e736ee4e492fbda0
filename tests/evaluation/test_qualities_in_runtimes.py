"""Every quality in the runtimes: re-scaled or not, an artifact is the checkpoint's network."""

import json

import numpy as np
import pytest

from phiquant.calibration.calibration_text import CalibrationText
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.job.making import quantize
from phiquant.recipe import Recipe
from phiquant.targets.table import target
from tiny_models import write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

SETTINGS = Settings(window=32, windows=4, answer=4)
TEXT = CalibrationText(sequences=4, length=64)
PACKAGES = {
    "gguf": "gguf",
    "mlx": "mlx_lm",
    "onnx": "onnxruntime_genai",
    "openvino": "openvino_genai",
}
RESCALED = [
    pytest.param(name, quality, marks=() if alone else pytest.mark.long)
    for number, name in enumerate(PACKAGES)
    for alone, quality in zip((number % 2, number % 2 == 0), ("balanced", "best"), strict=True)
]
"""Every target, in turn at one of the qualities; the long run has all."""
NORM = "model.layers.1.input_layernorm.weight"
WIDTHS = {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    model = tmp_path_factory.mktemp("made") / "tiny-phi"
    tiny = write_tiny_tokenizer(model)
    ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    write_tiny_checkpoint(model, pad_token_id=tiny.eos, **ends, **WIDTHS)
    return ReferenceFigures.measure(model, SETTINGS)


@pytest.mark.parametrize("name, quality", RESCALED)
def test_rescaled_artifacts_run_and_verify(truth, tmp_path, name, quality):
    pytest.importorskip(PACKAGES[name])
    recipe = Recipe(name, "int8", quality=quality)
    (made,) = quantize(truth.checkpoint.directory, [recipe], tmp_path / "out", text=TEXT)
    verification = verify(made.path, truth, SETTINGS)
    assert verification.passed, verification.reasons
    assert verification.weight_errors.worst < 0.02
    gains = target(name).open(made.path).weight(NORM)
    assert not np.allclose(gains, truth.checkpoint.weight(NORM), rtol=0.05)
    assert json.loads((made.path / "phiquant.json").read_text())["recipe"]["rescaling"]


@pytest.mark.parametrize("quality", ["balanced", "best"])
def test_channels_are_kept_where_that_is_asked_for(truth, tmp_path, quality):
    pytest.importorskip("gguf")
    recipe = Recipe("gguf", "int8", quality=quality, rescaling=False)
    (made,) = quantize(truth.checkpoint.directory, [recipe], tmp_path / "out", text=TEXT)
    gains = target("gguf").open(made.path).weight(NORM)
    assert np.array_equal(gains, truth.checkpoint.weight(NORM))
    assert not json.loads((made.path / "phiquant.json").read_text())["recipe"]["rescaling"]


@pytest.mark.parametrize("quality", ["balanced", "best"])
def test_floats_are_what_they_are_at_every_quality(truth, tmp_path, quality):
    pytest.importorskip("gguf")
    stored = []
    for at in ("fast", quality):
        recipe = Recipe("gguf", "fp16", quality=at)
        text = None if at == "fast" else TEXT
        quantize(truth.checkpoint.directory, [recipe], tmp_path / at, text=text)
        (file,) = (tmp_path / at).glob("*.gguf")
        stored.append(file.read_bytes())
    assert stored[0] == stored[1]
