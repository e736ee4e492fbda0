"""What runtimes may be given, rule by rule: whatever is not listed is refused by its name."""

import gzip
import json
from pathlib import Path

import pytest

from phiquant.errors import ArtifactError
from phiquant.targets.admission import read_settings
from phiquant.targets.mlx import admission as mlx
from phiquant.targets.onnx import admission as onnx_side
from phiquant.targets.openvino import admission as openvino
from phiquant.targets.tokenizer_settings import check_tokenizer_settings

GOLDEN = Path(__file__).parent / "golden"


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


STRANGE = {
    "twice": '{"a": 1, "a": 2}',
    "twice within": '{"a": [{"b": 1, "b": 1}]}',
    "a comment": '{"a": 1 /* what */}',
    "a comma too many": '{"a": 1,}',
    "text after the end": '{"a": 1} {"b": 2}',
    "no object": "[1]",
    "deep": "[" * 100_000,
    "a control character": '{"a": "\x00"}',
}


@pytest.mark.parametrize("fault", STRANGE)
def test_settings_that_readers_may_take_for_different_things_are_refused(tmp_path, fault):
    with pytest.raises(ArtifactError, match="settings"):
        read_settings(write(tmp_path / "settings.json", STRANGE[fault]))


def test_settings_that_are_no_file_are_refused(tmp_path):
    (tmp_path / "settings.json").mkdir()
    with pytest.raises(ArtifactError, match="expected a file"):
        read_settings(tmp_path / "settings.json")


def test_settings_of_gigabytes_are_refused_unread(tmp_path):
    with (tmp_path / "settings.json").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(ArtifactError, match="2,147,483,648 bytes"):
        read_settings(tmp_path / "settings.json")


def test_graphs_are_read_in_their_directory_alone(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "artifact").mkdir()
    write(tmp_path / "elsewhere" / "openvino_tokenizer.xml", "<net/>")
    (tmp_path / "elsewhere" / "model.onnx").touch()
    for file in (tmp_path / "elsewhere").iterdir():
        (tmp_path / "artifact" / file.name).symlink_to(file)
    with pytest.raises(ArtifactError, match="outside of the model's directory"):
        openvino.check_artifact(tmp_path / "artifact")
    with pytest.raises(ArtifactError, match="outside of the model's directory"):
        onnx_side.check_graph(tmp_path / "artifact" / "model.onnx")


# tokenizer_config.json -------------------------------------------------------------------------


def test_settings_of_published_tokenizers_pass(tmp_path):
    ordinary = {
        "add_bos_token": True, "add_eos_token": False, "add_prefix_space": None,
        "added_tokens_decoder": {"0": {"content": "<unk>", "lstrip": False}},
        "additional_special_tokens": ["<|a|>"], "bos_token": "<s>",
        "chat_template": "{% for m in messages %}{{ m }}{% endfor %}",
        "clean_up_tokenization_spaces": False, "eos_token": {"content": "</s>"},
        "extra_special_tokens": {}, "legacy": False, "model_max_length": 1e30,
        "pad_token": None, "padding_side": "left", "sp_model_kwargs": {}, "image_token": "<i>",
        "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>", "is_local": True,
        "use_default_system_prompt": False, "local_files_only": False, "backend": "tokenizers",
        "auto_map": {"AutoTokenizer": ["own.Own", None]}, "tokenizer_file": None,
    }  # fmt: skip
    write(tmp_path / "tokenizer_config.json", ordinary)
    write(tmp_path / "special_tokens_map.json", {"bos_token": {"content": "<s>"}})
    check_tokenizer_settings(tmp_path)
    check_tokenizer_settings(GOLDEN / "genai-builder-tied-longrope")


TOKENIZER_FAULTS = [
    ("tiktoken_file", "../../secret"),
    ("vocab_file", "/etc/passwd"),
    ("gguf_file", "x.gguf"),
    ("fast_tokenizer_files", ["../x"]),
    ("trust_remote_code", True),
    ("init_inputs", ["/etc/passwd"]),
    ("tokenizer_object", "x"),
    ("tokenizer_file", "/etc/passwd"),
    ("tokenizer_class", "RagTokenizer"),
    ("tokenizer_class", ["LlamaTokenizer"]),
    ("sp_model_kwargs", {"model_file": "/etc/passwd"}),
    ("chat_template_type", "../evil"),
    ("stolen_token", ["a list"]),
]


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("key, value", TOKENIZER_FAULTS)
def test_settings_of_tokenizers_that_are_not_known_are_refused(tmp_path, file, key, value):
    write(tmp_path / file, {key: value})
    with pytest.raises(ArtifactError, match=f"{key} in {file}"):
        check_tokenizer_settings(tmp_path)


# ONNX --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["genai-builder-untied", "genai-builder-tied-longrope"])
def test_what_genais_builder_makes_passes(name):
    assert onnx_side.check_artifact(GOLDEN / name) == GOLDEN / name / "model.onnx"


def decoder(**changes):
    return {"model": {"decoder": changes}}


def session(**options):
    return decoder(session_options=options)


ONNX_FAULTS = [
    ("custom_ops_library", session(custom_ops_library="x.so")),
    ("enable_profiling", session(enable_profiling="x")),
    ("ep.context_file_path", session(**{"ep.context_file_path": "/tmp/x"})),
    ("ep.context_enable", session(**{"ep.context_enable": "1"})),
    (
        "session.model_external_initializers_file_folder_path",
        session(**{"session.model_external_initializers_file_folder_path": "/etc"}),
    ),
    ("session.optimized_model_filepath", session(**{"session.optimized_model_filepath": "/x"})),
    ("session.load_model_format", session(**{"session.load_model_format": "ORT"})),
    ("session.intra_op.allow_spinning", session(**{"session.intra_op.allow_spinning": "/x"})),
    ("log_severity_level", session(log_severity_level="4")),
    ("provider_options", session(provider_options=[{"QNN": {"backend_path": "x.so"}}])),
    ("provider_options", session(provider_options=[{"RyzenAI": {}}])),
    ("provider_options", session(provider_options=[{"OpenVINO": {"load_config": "/x.json"}}])),
    ("provider_options", session(provider_options=[{"cuda": {"user_compute_stream": "1"}}])),
    ("provider_options", session(provider_options=[{"cuda": {"enable_cuda_graph": "/x"}}])),
    ("provider_options", session(provider_options={"cuda": {}})),
    ("provider_options", session(provider_options=["cuda"])),
    ("run_options", decoder(run_options={"enable_profiling": "x"})),
    ("pipeline", decoder(pipeline=[{"a": {"filename": "x.onnx"}}])),
    ("shared_initializers", decoder(shared_initializers=[{"data_file": "/x"}])),
    ("filename", decoder(filename="../x.onnx")),
    ("filename", decoder(filename="/x.onnx")),
    ("filename", decoder(filename="model.ort")),
    ("filename", decoder(filename=["model.onnx"])),
    ("inputs.surprise", decoder(inputs={"surprise": "x"})),
    ("tokenizer_dir", {"model": {"tokenizer_dir": "/etc"}}),
    ("draft", {"model": {"draft": {}}}),
    ("vision", {"model": {"vision": {"filename": "x.onnx"}}}),
    ("type", {"model": {"type": "decoder-pipeline"}}),
    ("search.surprise", {"search": {"surprise": 1}}),
    ("search.max_length", {"search": {"max_length": "x"}}),
    ("engine", {"engine": {}}),
    ("model", {"model": []}),
]


@pytest.mark.parametrize("key, settings", ONNX_FAULTS)
def test_settings_of_genai_that_are_not_known_are_refused(tmp_path, key, settings):
    write(tmp_path / "genai_config.json", settings)
    with pytest.raises(ArtifactError, match=f"{key} in genai_config.json"):
        onnx_side.check_artifact(tmp_path)


def test_providers_of_every_spelling_pass():
    for name in ("cuda", "CUDAExecutionProvider", "dml", "WebGPU", "NvTensorRtRtx"):
        assert onnx_side.SESSION["provider_options"]([{name: {}}])


def test_more_settings_of_the_tokenizer_are_refused(tmp_path):
    write(tmp_path / "genai_config.json", {})
    write(tmp_path / "tokenizer_module.json", {})
    with pytest.raises(ArtifactError, match=r"tokenizer_module\.json would add"):
        onnx_side.check_artifact(tmp_path)


def graph(*nodes, location="weights.data", **parts):
    """A model whose one stored tensor is in a file."""
    from onnx import TensorProto, helper

    tensor = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    inner = helper.make_graph(list(nodes), "g", [], [], initializer=[tensor])
    return helper.make_model(inner, **parts)


def check_graph(path, model):
    path.write_bytes(model.SerializeToString())
    onnx_side.check_graph(path)


def test_graphs_of_known_operators_pass(tmp_path):
    from onnx import helper

    nodes = (
        helper.make_node("Add", ["w", "w"], ["x"]),
        helper.make_node("MatMulNBits", ["x"], ["y"], domain="com.microsoft"),
        helper.make_node("Add", ["w", "w"], ["z"], domain="ai.onnx"),
    )
    check_graph(tmp_path / "model.onnx", graph(*nodes))


@pytest.mark.parametrize(
    "domain, operator",
    [
        ("ai.onnx.contrib", "PyOp"),
        ("com.microsoft", "EPContext"),
        ("", "Loop"),
        ("", "Scan"),
        ("x", "Add"),
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_operators_that_are_not_known_are_refused(tmp_path, domain, operator, inner):
    from onnx import helper

    node = helper.make_node(operator, [], ["y"], domain=domain)
    if inner:
        branch = helper.make_graph([node], "branch", [], [])
        node = helper.make_node("If", ["w"], ["y"], then_branch=branch, else_branch=branch)
    with pytest.raises(ArtifactError, match=f"the operator {domain or 'ai.onnx'}:{operator}"):
        check_graph(tmp_path / "model.onnx", graph(node))


@pytest.mark.parametrize(
    "location", ["../x", "/etc/passwd", "a/b", "..", "", "..\\x", "*/_ORT_MEM_ADDR_/*"]
)
def test_tensors_of_a_file_elsewhere_are_refused(tmp_path, location):
    with pytest.raises(ArtifactError, match="outside the artifact's directory"):
        check_graph(tmp_path / "model.onnx", graph(location=location))


def test_tensors_within_nodes_are_looked_at_too(tmp_path):
    from onnx import TensorProto, helper

    tensor = TensorProto(name="hidden", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    with pytest.raises(ArtifactError, match="hidden refers to '/etc/passwd'"):
        check_graph(tmp_path / "model.onnx", graph(node))


def test_functions_of_a_graphs_own_are_refused(tmp_path):
    from onnx import helper

    own = helper.make_function("x", "F", [], ["y"], [], [helper.make_opsetid("", 21)])
    with pytest.raises(ArtifactError, match="functions"):
        check_graph(tmp_path / "model.onnx", graph(functions=[own]))


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match="no ONNX model"):
        onnx_side.check_graph(tmp_path / "model.onnx")


# MLX ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, value",
    [
        ("model_file", "model.py"),
        ("model_type", "os.path"),
        ("model_type", None),
        ("tokenizer_class", "RagTokenizer"),
    ],
)
def test_what_has_mlx_lm_run_other_code_is_refused(tmp_path, key, value):
    write(tmp_path / "config.json", {"model_type": "phi3", key: value})
    with pytest.raises(ArtifactError, match=key):
        mlx.check_artifact(tmp_path)


def test_published_configurations_pass(tmp_path):
    code = {"auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}
    write(tmp_path / "config.json", {"model_type": "phi3", **code})
    mlx.check_artifact(tmp_path)


# OpenVINO ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["optimum-fp32", "optimum-int4-asym", "optimum-int4-sym"])
def test_what_optimum_makes_passes(tmp_path, name):
    for file in (GOLDEN / name).glob("*.gz"):
        (tmp_path / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    openvino.check_artifact(tmp_path)


IR = """<?xml version="1.0"?>{before}
<net name="m" version="11">
<layers>
<layer id="0" name="c" type="Const" version="opset1">
<data element_type="f32" shape="2" offset="0" size="8"/>
<output><port id="0"><dim>2</dim></port></output>
</layer>
{layer}
</layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges>
<rt_info>{info}</rt_info>
</net>
"""


def check_ir(tmp_path, before="", layer="", info="", name="openvino_model.xml"):
    path = write(tmp_path / name, IR.format(before=before, layer=layer, info=info))
    path.with_suffix(".bin").write_bytes(bytes(8))
    openvino.check_artifact(tmp_path)


def layer(kind, version, within=""):
    return f'<layer id="1" name="x" type="{kind}" version="{version}">{within}</layer>'


def constant(**changes):
    data = {"element_type": "f32", "shape": "2", "offset": "0", "size": "8"} | changes
    words = " ".join(f'{key}="{value}"' for key, value in data.items())
    return layer("Const", "opset1", f"<data {words}/>")


def test_a_plain_graph_passes(tmp_path):
    check_ir(tmp_path, layer=constant(), info='<optimum><a value="1"/></optimum>')


IR_FAULTS = [
    ("a document type", {"before": "<!DOCTYPE net>"}),
    ("a document type", {"before": '<!DOCTYPE net [<!ENTITY e SYSTEM "file:///etc/passwd">]>'}),
    ("the operator extension:Stranger", {"layer": layer("Stranger", "extension")}),
    ("the operator extension:BPETokenizer", {"layer": layer("BPETokenizer", "extension")}),
    ("the operator opset1:CONST", {"layer": layer("CONST", "opset1")}),
    ("the operator opset5:Loop", {"layer": layer("Loop", "opset5")}),
    ("the operator opset8:If", {"layer": layer("If", "opset8")}),
    ("the operator :", {"layer": '<layer id="1" name="x"/>'}),
    ("the element 'body'", {"layer": layer("Add", "opset1", "<body/>")}),
    ("the element 'layers'", {"layer": "<layers/>"}),
    ("a constant with .*ptr", {"layer": constant(ptr="140000000")}),
    (
        "a constant with element_type",
        {"layer": layer("Const", "opset1", '<data element_type="f32" shape="2" value="x"/>')},
    ),
    ("beyond the end", {"layer": constant(offset="4")}),
    ("constant of 1 bytes", {"layer": constant(offset=str(2**64 - 1), size="1")}),
    ("no OpenVINO model", {"layer": constant(offset="x")}),
    ("elements more than 32 within", {"info": "<nncf>" * 40 + "</nncf>" * 40}),
    ("'__weights_path' in rt_info", {"info": '<__weights_path value="/etc/passwd"/>'}),
    ("'__weights_path' in rt_info", {"info": '<info name="__weights_path" value="/etc/passwd"/>'}),
    (
        "the runtime option 'CACHE_DIR'",
        {"info": '<runtime_options><CACHE_DIR value="/tmp/x"/></runtime_options>'},
    ),
    (
        "the runtime option 'WEIGHTS_PATH'",
        {"info": '<info name="runtime_options"><info name="WEIGHTS_PATH" value="/x"/></info>'},
    ),
]


@pytest.mark.parametrize("fault, changes", IR_FAULTS)
def test_graphs_with_what_is_not_known_are_refused(tmp_path, fault, changes):
    with pytest.raises(ArtifactError, match=fault):
        check_ir(tmp_path, **changes)


def test_the_tokenizers_operators_are_for_tokenizers(tmp_path):
    own = layer("BPETokenizer", "extension")
    check_ir(tmp_path, layer=own, name="openvino_tokenizer.xml")


def test_an_encoding_of_the_texts_own_choice_is_not_taken(tmp_path):
    """Read as EBCDIC, as it asks for, these bytes would be another graph than OpenVINO reads."""
    text = IR.format(before="", layer="", info="").replace("?>", ' encoding="cp037"?>', 1)
    write(tmp_path / "openvino_model.xml", text)
    (tmp_path / "openvino_model.bin").write_bytes(bytes(8))
    openvino.check_artifact(tmp_path)
    bad = text.replace('type="Const"', 'type="Stranger"')
    write(tmp_path / "openvino_model.xml", bad)
    with pytest.raises(ArtifactError, match="Stranger"):
        openvino.check_artifact(tmp_path)


@pytest.mark.parametrize("name", ["openvino_text_embeddings_model.xml", "OTHER.XML"])
def test_further_graphs_are_refused(tmp_path, name):
    write(tmp_path / name, "<net/>")
    with pytest.raises(ArtifactError, match=f"{name} is a graph"):
        openvino.check_artifact(tmp_path)
