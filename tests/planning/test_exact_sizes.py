"""What the plan promises is what lies on disk, to the byte: every target, precision and type."""

import re
import struct
import xml.etree.ElementTree as ET

import numpy as np
import onnx_ir
import pytest
from safetensors import safe_open

from command_line import tiny_model
from phiquant.job.making import quantize
from phiquant.job.prospect import plan
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.config import read_architecture
from phiquant.phi.outline import assumed_survey
from phiquant.planning.precision import PRECISIONS
from phiquant.recipe import Recipe
from phiquant.targets.table import targets
from tiny_models import longrope, tiny_config

SHAPES = {
    "untied": {},
    "tied-longrope": {"tie_word_embeddings": True, **longrope(32)},
    "odd-rows": {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 3,
                 "num_key_value_heads": 1, "vocab_size": 523},
}  # fmt: skip
OPTIONS = {"onnx": [(), (("provider", "cuda"),), (("qdq", "true"),)], "openvino": [()]}
NPU = (("ov_device", "NPU"),)


def gguf_bytes(directory):
    """From the file's own tensor table, read field by field: what each tensor's type takes."""
    gguf = pytest.importorskip("gguf")
    (file,) = directory.glob("*.gguf")
    return sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(file).tensors)


def mlx_bytes(directory):
    """The data section of every safetensors file: all but the header and its length."""
    total = 0
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="numpy"):
            pass
        (header,) = struct.unpack("<Q", file.read_bytes()[:8])
        total += file.stat().st_size - 8 - header
    return total


def onnx_bytes(directory):
    """Every tensor whose data lies in the external file, by its stated length."""
    model = onnx_ir.load(directory / "model.onnx")
    places = {
        (value.const_value.offset, value.const_value.length)
        for value in model.graph.initializers.values()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    }
    return sum(length for _, length in places)


def openvino_bytes(directory):
    """Every constant of the network that a weight can be: those larger than shapes and axes."""
    root = ET.parse(directory / "openvino_model.xml").getroot()
    total, places = 0, set()
    for layer in root.iter("layer"):
        data = layer.find("data")
        if layer.get("type") != "Const" or not re.match(
            r"self\.(model|lm_head)\.", layer.get("name", "")
        ):
            continue
        place = (int(data.get("offset")), int(data.get("size")))
        if place not in places:
            places.add(place)
            total += place[1]
    return total


STORED = {
    "gguf": gguf_bytes, "mlx": mlx_bytes, "onnx": onnx_bytes, "openvino": openvino_bytes,
}  # fmt: skip


@pytest.fixture(scope="module", params=SHAPES)
def model(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sizes") / request.param
    return tiny_model(directory, **SHAPES[request.param])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_of_every_target(model, tmp_path, precision):
    recipes = [Recipe(target.name, precision) for target in targets()]
    before = [one.nbytes for one in plan(model, recipes).plans]
    made = quantize(model, recipes, tmp_path / "out")
    after = [STORED[one.plan.target](one.path) for one in made]
    assert before == [one.plan.nbytes for one in made] == after


def kinds():
    """Every type, every option that changes what is stored."""
    for target in targets():
        for type in target.types:
            yield target.name, type, ()
        for options in OPTIONS.get(target.name, [()])[1:]:
            for type in ("int4-b32", "int8-b64-sym", "fp16"):
                yield target.name, type, options
    yield "openvino", "int4-sym-g128", NPU
    yield "openvino", "int4-sym-g64", (("ratio", "0.5"),)
    yield "onnx", "int4-b32", (("embedding", "8"),)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The shapes that every type is made of."""
    directory = tmp_path_factory.mktemp("typed")
    names = ("untied", "tied-longrope")
    return [tiny_model(directory / name, **SHAPES[name]) for name in names]


@pytest.mark.parametrize("target, type, options", list(kinds()))
def test_every_type(target, type, options, models, tmp_path):
    for number, directory in enumerate(models):
        recipe = Recipe(target, None, type, options=options)
        (made,) = quantize(directory, [recipe], tmp_path / str(number))
        assert made.plan.type.lower() == type.lower()
        assert STORED[target](made.path) == made.plan.nbytes


def test_a_configuration_alone_gives_the_same_plans(model, tmp_path):
    recipes = [Recipe(target.name, "int8") for target in targets()]
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    known, assumed = plan(model, recipes), plan(tmp_path, recipes)
    assert known.checkpoint is not None
    assert assumed.checkpoint is None
    for one, other in zip(known.plans, assumed.plans, strict=True):
        assert one.rows == other.rows
        assert "not read" in other.notes[-1]


def test_an_assumed_survey_has_every_weight(tmp_path):
    directory = tiny_model(tmp_path / "model")
    source = Checkpoint.open(directory)
    survey = assumed_survey(read_architecture(tiny_config()), "F16")
    assert set(survey.largest) == set(source.tensors)
    assert all(survey.fits_fp16(name) for name in source.tensors)
    assert not np.isnan(list(survey.largest.values())).any()
