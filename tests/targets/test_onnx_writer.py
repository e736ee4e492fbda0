"""What the ONNX writer leaves on disk: the plan to the byte, the graph's form, the config."""

import json

import pytest
from onnx_tiny import tiny_source, write_artifact

from phiquant.errors import RequestError
from phiquant.phi.survey import Survey
from phiquant.recipe import Recipe
from phiquant.targets.onnx import TARGET
from tiny_models import longrope

ir = pytest.importorskip("onnx_ir")


def recipe(kind=None, precision=None, **options):
    pairs = tuple((name, str(value)) for name, value in options.items())
    return Recipe("onnx", precision, kind, options=pairs)


def plan_of(source, asked, largest=1.0, dtype="BF16"):
    names = [weight.name for weight in source.architecture.weights()]
    return TARGET.plan(
        source.architecture, Survey(dict.fromkeys(names, largest), dtype), asked.form
    )


def graph(directory):
    return ir.load(directory / "model.onnx").graph


def operators(directory):
    return {(node.domain, node.op_type) for node in graph(directory).all_nodes()}


def config(directory):
    return json.loads((directory / "genai_config.json").read_text())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("int4-b32", {}), ("int8-b64-sym", {}), ("fp16", {}), ("int4-b16-sym", {"qdq": "true"})],
)
def test_the_plan_is_the_external_data(tmp_path, kind, options, tied):
    source = tiny_source(tmp_path / "source", tie_word_embeddings=tied)
    plan = write_artifact(source, tmp_path / "out", kind, **options)
    held = {}
    for value in graph(tmp_path / "out").initializers.values():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            held[tensor.offset] = tensor.length
            assert tensor.location == "model.onnx.data"
            assert tensor.offset % (4096 if tensor.length >= 65536 else 64) == 0
        else:
            assert tensor.nbytes <= 64, value.name
    assert sum(held.values()) == plan.nbytes
    ends = [offset + length for offset, length in sorted(held.items())]
    assert all(end <= start for end, start in zip(ends, sorted(held)[1:], strict=False))
    assert ends[-1] == (tmp_path / "out" / "model.onnx.data").stat().st_size


def test_tied_head_and_embedding_are_one_matrix(tmp_path):
    source = tiny_source(tmp_path / "source", tie_word_embeddings=True)
    write_artifact(source, tmp_path / "out", "int4-b32")
    nodes = {node.op_type: node for node in graph(tmp_path / "out")}
    head = [node for node in graph(tmp_path / "out") if node.op_type == "MatMulNBits"][-1]
    places = {
        (node.inputs[at].const_value.offset, node.inputs[at].const_value.length)
        for node, at in ((head, 1), (nodes["GatherBlockQuantized"], 0))
    }
    assert len(places) == 1


def test_standard_form_has_no_contrib_operator(tmp_path):
    source = tiny_source(tmp_path / "source", **longrope(32, original=32), sliding_window=20)
    for kind in ("int4-b32", "int8-b32-sym", "fp16"):
        write_artifact(source, tmp_path / kind, kind, qdq="true")
        assert {domain for domain, _ in operators(tmp_path / kind)} == {""}
        model = ir.load(tmp_path / kind / "model.onnx")
        assert model.graph.opset_imports[""] == 21
        assert config(tmp_path / kind)["search"]["past_present_share_buffer"] is False
    types = {value.dtype for value in graph(tmp_path / "int4-b32").initializers.values()}
    assert ir.DataType.UINT4 in types


@pytest.mark.parametrize("provider", ["cpu", "mobile", "cuda", "dml", "webgpu"])
def test_each_provider_gets_its_operators(tmp_path, provider):
    source = tiny_source(tmp_path / "source", **longrope(32, original=32))
    write_artifact(source, tmp_path / "out", "int4-b32", provider=provider)
    kinds = operators(tmp_path / "out")
    fused = {"GroupQueryAttention", "SkipSimplifiedLayerNormalization", "MatMulNBits"}
    assert fused <= {op for _, op in kinds}
    assert (("com.microsoft", "RotaryEmbedding") in kinds) == (provider == "dml")
    assert (("", "If") in kinds) == (provider in ("cuda", "webgpu"))
    inputs = {value.name: value for value in graph(tmp_path / "out").inputs}
    assert ("position_ids" in inputs) == (provider == "dml")
    on_cpu = provider in ("cpu", "mobile")
    expected = ir.DataType.FLOAT if on_cpu else ir.DataType.FLOAT16
    assert inputs["past_key_values.0.key"].dtype is expected
    assert graph(tmp_path / "out").outputs[0].name == "logits"
    assert graph(tmp_path / "out").outputs[0].dtype is expected
    (product, *_) = [n for n in graph(tmp_path / "out") if n.op_type == "MatMulNBits"]
    assert product.attributes["accuracy_level"].value == (4 if on_cpu else 0)
    options = config(tmp_path / "out")["model"]["decoder"]["session_options"]["provider_options"]
    assert [name for entry in options for name in entry] == ([] if on_cpu else [provider])


def test_the_config_is_the_checkpoints(tmp_path):
    source = tiny_source(tmp_path / "source", tie_word_embeddings=True)
    (source.directory / "generation_config.json").write_text(
        json.dumps({"do_sample": True, "temperature": 0.6, "top_k": None, "eos_token_id": [506]})
    )
    write_artifact(source, tmp_path / "out", "int8-b32")
    written = config(tmp_path / "out")
    model, own = written["model"], source.architecture
    assert model["type"] == "phi3"
    assert model["eos_token_id"] == [503, 506]
    assert model["bos_token_id"] == 503
    assert model["context_length"] == own.max_positions
    assert model["vocab_size"] == own.vocabulary_size
    assert model["decoder"]["num_key_value_heads"] == own.kv_heads
    assert model["decoder"]["head_size"] == own.head_size
    assert (written["search"]["do_sample"], written["search"]["temperature"]) == (True, 0.6)
    assert written["search"]["top_k"] == 50
    assert written["search"]["past_present_share_buffer"] is True
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= names


def test_clients_that_go_by_config_json_get_the_checkpoints_without_code(tmp_path):
    """Optimum and transformers.js; a config that names Python files would have them imported."""
    source = tiny_source(
        tmp_path / "source",
        auto_map={"AutoConfig": "code.Config"},
        custom_pipelines={"chat": {"impl": "code.Chat"}},
        _name_or_path="elsewhere",
    )
    write_artifact(source, tmp_path / "out", "int4-b32")
    document = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "code." not in json.dumps(document)
    left_out = {"auto_map", "custom_pipelines", "_name_or_path"}
    expected = {name: value for name, value in source.config.items() if name not in left_out}
    assert document == expected | {"eos_token_id": [503, 506]}
    transformers = pytest.importorskip("transformers")
    read = transformers.AutoConfig.from_pretrained(tmp_path / "out", local_files_only=True)
    assert (read.model_type, read.num_key_value_heads) == ("phi3", source.architecture.kv_heads)


def test_last_logits_shrinks_the_head(tmp_path):
    source = tiny_source(tmp_path / "source")
    plan = write_artifact(source, tmp_path / "out", "int4-b32", last_logits="true")
    assert tuple(graph(tmp_path / "out").outputs[0].shape)[1] == 1
    assert any("last position" in note for note in plan.notes)


def test_every_row_has_its_reason(tmp_path):
    source = tiny_source(tmp_path / "source", hidden_size=80, intermediate_size=96)
    plan = plan_of(source, recipe("int4-b64", embedding=8))
    rows = {row.output: row for row in plan.rows}
    assert rows["model.embed_tokens"].grid == "int8-b16 F32"
    assert "8 bits" in rows["model.embed_tokens"].reason
    assert rows["model.layers.0.mlp.down_proj"].grid == "int4-b32 F32"
    assert "do not divide" in rows["model.layers.0.mlp.down_proj"].reason
    assert rows["model.layers.0.input_layernorm"].grid == "F32"
    assert rows["cos_cache"].source is None
    assert all(row.reason for row in plan.rows)
    odd = plan_of(source, recipe("int4-b64", qdq="true"))
    assert {row.grid for row in odd.rows if row.role == "embedding"} == {"int8-b16 F32"}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kind": "int3-b32"}, "no type"),
        ({"provider": "npu"}, "provider"),
        ({"accuracy_level": 7}, "accuracy_level"),
        ({"qdq": "maybe"}, "qdq"),
        ({"precision": "fp32", "provider": "cuda"}, "FP16 only"),
    ],
)
def test_what_there_is_not_is_refused(asked, message):
    with pytest.raises(RequestError, match=message):
        recipe(**asked)


def test_weights_beyond_fp16_are_refused_where_they_would_be_stored_so(tmp_path):
    source = tiny_source(tmp_path / "source")
    with pytest.raises(RequestError, match="FP16 ends at 65504"):
        plan_of(source, recipe("fp16"), largest=70000.0)
    assert plan_of(source, recipe("fp32"), largest=70000.0).type == "fp32"
