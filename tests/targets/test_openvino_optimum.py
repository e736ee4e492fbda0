"""IRs that optimum-intel made are read as the runtime reads them."""

import dataclasses
import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
from openvino_tiny import some_tokens

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.targets.openvino import TARGET
from phiquant.targets.openvino.admission import SECTIONS
from tiny_models import write_tiny_checkpoint

GOLDEN = Path(__file__).parent / "golden"
sys.path.append(str(GOLDEN))
KINDS = {"fp32": "bf16", "int4-sym": "int4-sym-g32", "int4-asym": "int4-asym-g32"}
ERRORS = {"fp32": 0.0, "int4-sym": 0.15, "int4-asym": 0.1}
"""The greatest error relative to a weight's norm."""


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    import make_optimum_goldens as goldens

    source = GOLDEN / f"optimum-{request.param}"
    for packed in source.glob("*.gz"):
        (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    tied = goldens.KINDS[request.param][0]
    write_tiny_checkpoint(tmp_path / "source", tie_word_embeddings=tied, **goldens.SHAPE)
    return request.param, tmp_path, Checkpoint.open(tmp_path / "source")


def test_types_and_weights(made):
    name, path, checkpoint = made
    assert TARGET.recognises(path)
    artifact = TARGET.open(path)
    assert artifact.type == KINDS[name]
    assert artifact.architecture == checkpoint.architecture
    for weight in checkpoint.architecture.weights():
        expected, actual = checkpoint.weight(weight.name), artifact.weight(weight.name)
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        assert error <= ERRORS[name], weight.name


def test_the_decoded_weights_are_the_runtimes(made):
    ov = pytest.importorskip("openvino")
    _, path, _ = made
    tokens = some_tokens(30, 256)
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    compiled = ov.Core().compile_model(path / "openvino_model.xml", "CPU", exact)
    answer = compiled.create_infer_request().infer(
        {
            "input_ids": tokens[None].astype(np.int64),
            "attention_mask": np.ones((1, 30), np.int64),
            "position_ids": np.arange(30)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
    )["logits"][0]
    np.testing.assert_allclose(answer, Reference(TARGET.open(path)).logits(tokens), atol=1e-3)


def test_every_setting_that_tokenizers_are_converted_by_is_known():
    """A tokenizer's graph names them; a new one must not refuse what optimum-cli made."""
    utils = pytest.importorskip("openvino_tokenizers.utils")
    settings = {field.name for field in dataclasses.fields(utils.TokenzierConversionParams)}
    assert settings <= SECTIONS
