"""`quantize` and `verify` for ONNX, whole: what is made passes, what is tampered fails.

The record with the files' hashes is removed first, so that faults are found by what the artifact
does.
"""

import json
import shutil

import numpy as np
import pytest

from phiquant.errors import RequestError
from phiquant.evaluation.check import Outcome
from phiquant.evaluation.inspection import inspect
from phiquant.evaluation.settings import Settings
from phiquant.evaluation.truth import ReferenceFigures
from phiquant.evaluation.verification import verify
from phiquant.job.making import quantize
from phiquant.recipe import Recipe
from tiny_models import longrope, write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer

pytest.importorskip("onnxruntime_genai")
ir = pytest.importorskip("onnx_ir")

SETTINGS = Settings(window=32, windows=4, answer=4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "tiny-phi"
    tiny = write_tiny_tokenizer(directory)
    ends = {"bos_token_id": tiny.bos, "eos_token_id": [tiny.end, tiny.eos]}
    fields = longrope(16, original=64) | {"tie_word_embeddings": True, "pad_token_id": tiny.eos}
    return write_tiny_checkpoint(directory, dtype="F32", **ends, **fields)


@pytest.fixture(scope="module")
def truth(model):
    return ReferenceFigures.measure(model, SETTINGS)


def make(model, output, precision, **options):
    quantize(model, [Recipe("onnx", precision, options=tuple(options.items()))], output)
    return output


def outcomes(path, truth):
    verification = verify(path, truth, SETTINGS)
    json.dumps(verification.as_json(), allow_nan=False)
    return {check.name: check.outcome for check in verification.checks}


@pytest.mark.parametrize("qdq", ["false", "true"])
@pytest.mark.parametrize(
    ("precision", "most"), [("fp32", 1e-5), ("fp16", 1e-4), ("int8", 0.05), ("int4", 0.6)]
)
def test_what_is_made_passes(model, truth, tmp_path, precision, most, qdq):
    verification = verify(make(model, tmp_path / "out", precision, qdq=qdq), truth, SETTINGS)
    assert verification.passed, verification.reasons
    assert verification.figures.mean.value < most
    checks = {check.name: check.outcome for check in verification.checks}
    assert checks["LongRoPE"] is Outcome.PASSED
    assert checks["metadata"] is Outcome.PASSED
    assert verification.target == "onnx"
    seen = inspect(tmp_path / "out")
    assert seen.format == "ONNX Runtime GenAI"
    assert seen.record.recipe["options"] == ({"qdq": "true"} if qdq == "true" else {})


def test_a_corrupt_scale_fails(model, truth, tmp_path):
    path = make(model, tmp_path / "out", "int8")
    (path / "phiquant.json").unlink()
    initializers = ir.load(path / "model.onnx").graph.initializers
    scales = initializers["model.layers.1.mlp.down_proj.scales"].const_value
    data = np.memmap(path / "model.onnx.data", np.uint8, "r+", scales.offset, (scales.length,))
    data.view(np.float32)[:] *= -1
    data.flush()
    by_name = outcomes(path, truth)
    assert by_name["weights"] is by_name["divergence"] is Outcome.FAILED


def test_swapped_rotary_caches_fail(model, truth, tmp_path):
    """Long factors in short sequences, as metadata and weights would never show."""
    path = make(model, tmp_path / "out", "fp32")
    (path / "phiquant.json").unlink()
    graph = ir.load(path / "model.onnx")
    for node in graph.graph:
        if node.name == "/model/longrope/Greater":
            node.op_type = "LessOrEqual"
    (path / "model.onnx").write_bytes(ir.to_proto(graph).SerializeToString())
    assert outcomes(path, truth)["LongRoPE"] is Outcome.FAILED


def test_a_missing_end_fails(model, truth, tmp_path):
    path = make(model, tmp_path / "out", "fp32")
    (path / "phiquant.json").unlink()
    config = json.loads((path / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = config["model"]["eos_token_id"][:1]
    (path / "genai_config.json").write_text(json.dumps(config))
    assert outcomes(path, truth)["stopping rule"] is Outcome.FAILED


def test_changed_files_fail_by_their_hash(model, truth, tmp_path):
    path = make(model, tmp_path / "out", "int4")
    shutil.copyfile(path / "tokenizer.json", path / "genai.tmp")
    with (path / "model.onnx.data").open("r+b") as file:
        file.seek(40)
        file.write(b"\x01\x02\x03")
    assert outcomes(path, truth)["files"] is Outcome.FAILED


def test_options_are_the_targets_own(model, tmp_path):
    with pytest.raises(RequestError, match="has no option"):
        quantize(model, [Recipe("onnx", options=(("colour", "red"),))], tmp_path / "out")
    with pytest.raises(RequestError, match="has no option"):
        quantize(model, [Recipe("gguf", options=(("qdq", "true"),))], tmp_path / "out")
    with pytest.raises(RequestError, match="given twice"):
        options = (("qdq", "true"), ("qdq", "false"))
        quantize(model, [Recipe("onnx", options=options)], tmp_path / "out")
