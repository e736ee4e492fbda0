"""Every value of a graph states its type and shape: those that the runtime computes."""

import itertools
import shutil

import numpy as np
import pytest
from onnx_tiny import some_tokens, tiny_source, write_artifact

from phiquant.evaluation.figures import mean_divergence
from phiquant.targets.onnx import TARGET
from tiny_models import longrope

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

EXTENTS = {
    "batch_size": 1,
    "sequence_length": 5,
    "past_sequence_length": 3,
    "total_sequence_length": 8,
    "hole_sequence_length": 0,
    "cache_length": 32,
}
LONG = longrope(32, original=32)
FORMS = {
    "int4": ("int4-b32", {}, LONG),
    "fp32": ("fp32", {}, {"partial_rotary_factor": 0.75}),
    "int4-qdq": ("int4-b32", {"qdq": "true"}, LONG | {"sliding_window": 4}),
    "fp32-qdq": ("fp32", {"qdq": "true"}, {"partial_rotary_factor": 0.75}),
    "cuda": ("int8-b32", {"provider": "cuda"}, LONG),
    "dml": ("fp16", {"provider": "dml"}, LONG),
    "last": ("int4-b32", {"last_logits": "true"}, {}),
}


@pytest.fixture(params=FORMS)
def written(request, tmp_path):
    """A directory with an artifact of each form, tied and untied in turn."""
    kind, options, fields = FORMS[request.param]
    tied = request.param.startswith("int4")
    source = tiny_source(tmp_path / "source", tie_word_embeddings=tied, **fields)
    write_artifact(source, tmp_path / "out", kind, **options)
    return tmp_path / "out"


def stated(graph):
    """Name → (element type, extents) of every value that the nodes of `graph` compute."""
    infos = {info.name: info.type.tensor_type for info in (*graph.value_info, *graph.output)}
    shapes = {}
    for name in itertools.chain.from_iterable(node.output for node in graph.node):
        if name:
            assert name in infos, f"{name} has neither type nor shape"
            shapes[name] = infos[name].elem_type, extents(infos[name], name)
    return shapes


def extents(type, name):
    assert type.HasField("shape"), f"{name} has no shape"
    for extent in type.shape.dim:
        known = extent.HasField("dim_value") or extent.dim_param in EXTENTS
        assert known, f"{name} has the extent {extent.dim_param!r}"
    return tuple(extent.dim_value or EXTENTS.get(extent.dim_param, 0) for extent in type.shape.dim)


def feeds(graph):
    """Some tokens after a past; GroupQueryAttention takes one sequence of them only."""
    given = {}
    for value in graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        shape = extents(value.type.tensor_type, value.name)
        given[value.name] = np.ones(shape, dtype)
    ids = given["input_ids"]
    given["input_ids"] = some_tokens(ids.size).reshape(ids.shape).astype(np.int64)
    return given


def test_every_value_is_what_its_type_and_shape_say(written):
    model = onnx.load(written / "model.onnx", load_external_data=False)
    expected = stated(model.graph)
    outputs = {value.name for value in model.graph.output}
    infos = [info for info in model.graph.value_info if info.name not in outputs]
    model.graph.output.extend(infos)
    onnx.save(model, written / "all.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(written / "all.onnx"), options, providers=["CPUExecutionProvider"]
    )
    names = list(expected)
    for name, value in zip(names, session.run(names, feeds(model.graph)), strict=True):
        elements = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
        assert (elements, value.shape) == expected[name], name


# Tools that need the types ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["false", "true"], ids=["fused", "standard"])
def floats(request, tmp_path_factory):
    """An FP32 artifact of either form."""
    root = tmp_path_factory.mktemp("floats")
    source = tiny_source(root / "source", dtype="F32")
    write_artifact(source, root / "out", "fp32", qdq=request.param)
    return root / "out"


def test_onnx_runtimes_own_quantizer_takes_it(floats, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    shutil.copyfile(floats / "genai_config.json", tmp_path / "genai_config.json")
    quantization.quantize_dynamic(floats / "model.onnx", tmp_path / "model.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert operators.count("MatMulInteger") == 9
    tokens = some_tokens(40)
    with TARGET.runner(floats) as original, TARGET.runner(tmp_path) as quantized:
        actual, expected = quantized.logits(tokens), original.logits(tokens)
    assert mean_divergence(expected, actual, tokens) < 0.05


def test_symbolic_shapes_are_inferred(floats, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the tool leaves files where it runs
    pytest.importorskip("sympy")
    tool = pytest.importorskip("onnxruntime.tools.symbolic_shape_infer")
    model = onnx.load(floats / "model.onnx")
    inferred = tool.SymbolicShapeInference.infer_shapes(model).graph
    shapes = {info.name: info.type.tensor_type.shape.dim for info in inferred.value_info}
    shapes |= {info.name: info.type.tensor_type.shape.dim for info in inferred.output}
    for name, (_, expected) in stated(model.graph).items():
        assert len(shapes[name]) == len(expected), name
