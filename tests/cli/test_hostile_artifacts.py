"""Artifacts by a stranger: whatever they ask for, they are refused, and nothing of theirs runs.

Each test is of the installed command. That what is planted would fire is shown where it can be: in
the bare runtime, without phiquant.
"""

import json
import shutil
import subprocess
import sys

import pytest

from command_line import assert_refused, call, environment, run, tiny_model
from gguf_fields import text as gguf_text
from gguf_fields import uint32, with_fields
from sentinels import Sentinel

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("openvino_genai")
pytest.importorskip("mlx_lm")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A checkpoint, its artifact for every target, and a short text."""
    root = tmp_path_factory.mktemp("everything")
    tiny_model(root / "model", num_hidden_layers=1)
    targets = ("--to", "gguf,mlx,onnx,openvino")
    ended = call("quantize", root / "model", *targets, "-o", root / "out", "-q")
    assert ended.code == 0, ended.err
    (root / "text.txt").write_text("The quick brown fox jumps over the lazy dog. 1 = 1.\n" * 20)
    return root


@pytest.fixture
def artifact(everything, tmp_path):
    """A function that gives an artifact of one's own, without its record."""

    def copy(target):
        shutil.copytree(everything / "out" / target, tmp_path / target)
        (tmp_path / target / "phiquant.json").unlink()
        return tmp_path / target

    return copy


@pytest.fixture
def sentinel(tmp_path):
    return Sentinel(tmp_path)


@pytest.fixture
def refused(everything, sentinel):
    """Verify and inspect an artifact; it must fail with a sentence that has `words`."""

    def check(path, *words, by=call, **options):
        against = ("--against", everything / "model", "--text", everything / "text.txt")
        ended = by("verify", path, *against, "--windows", "1", "-q", "--json", **options)
        assert ended.code == 3, ended
        document = json.loads(ended.out)
        assert document["passed"] is False
        for word in words:
            assert word in " ".join(document["reasons"])
        assert "Traceback" not in ended.err and "bug in phiquant" not in ended.err
        call("inspect", path)
        assert not sentinel.fired, "something of the artifact's was loaded"
        return document

    return check


def test_an_honest_artifact_is_not_refused(everything, artifact, sentinel):
    against = ("--against", everything / "model", "--text", everything / "text.txt")
    for target in ("gguf", "mlx", "onnx", "openvino"):
        ended = call("verify", artifact(target), *against, "--windows", "1", "-q", "--json")
        assert ended.code == 0, ended


# ONNX ----------------------------------------------------------------------------------------


def edit(path, change):
    """Let `change` work on the JSON document in `path`."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def session(path):
    """A function that sets session options in the artifact at `path`."""

    def with_options(**options):
        config = path / "genai_config.json"
        edit(config, lambda one: one["model"]["decoder"]["session_options"].update(options))

    return with_options


BARE = "import sys, onnxruntime_genai; onnxruntime_genai.Model(sys.argv[1])"


def load_bare(path, cwd):
    """What anyone does who loads an ONNX artifact with onnxruntime-genai."""
    command = [sys.executable, "-P", "-c", BARE, str(path)]
    subprocess.run(command, cwd=cwd, capture_output=True, env=environment(), check=False)


def test_a_library_of_operators_is_not_loaded(artifact, sentinel, refused):
    path = artifact("onnx")
    sentinel.library(path / "operators.so")
    session(path)(custom_ops_library="operators.so")
    load_bare(path, path)
    assert sentinel.fired, "the bare runtime loads it"
    sentinel.mark.unlink()
    refused(path, "custom_ops_library", by=run)


def test_a_providers_library_beside_the_artifact_is_not_loaded(artifact, sentinel, refused):
    """onnxruntime-genai looks for it in the working directory."""
    path = artifact("onnx")
    sentinel.library(path / "libonnxruntime_providers_ryzenai.so")
    session(path)(provider_options=[{"RyzenAI": {}}])
    load_bare(path, path)
    if not sentinel.fired:
        pytest.skip("this build has no such provider")
    sentinel.mark.unlink()
    refused(path, "provider_options", by=run, cwd=path)


def test_no_profile_is_written(artifact, refused, tmp_path):
    path = artifact("onnx")
    session(path)(enable_profiling=str(tmp_path / "profile"))
    load_bare(path, tmp_path)
    written = list(tmp_path.glob("profile*"))
    assert written, "the bare runtime writes one"
    for one in written:
        one.unlink()
    refused(path, "enable_profiling")
    assert not list(tmp_path.glob("profile*"))


def test_settings_that_stand_twice_are_refused(artifact, sentinel, refused):
    """Python sees the last of two equal keys, onnxruntime-genai both."""
    path = artifact("onnx")
    sentinel.library(path / "operators.so")
    config = path / "genai_config.json"
    config.write_text(
        config.read_text().replace(
            '"session_options": {',
            '"session_options": {"custom_ops_library": "operators.so"}, "session_options": {',
            1,
        )
    )
    load_bare(path, path)
    assert sentinel.fired, "the bare runtime loads it"
    sentinel.mark.unlink()
    refused(path, "session_options is given twice")


def test_another_graph_than_the_one_that_is_read_is_not_run(artifact, refused):
    path = artifact("onnx")
    shutil.copy(path / "model.onnx", path / "other.onnx")
    (path / "model.onnx").write_bytes(b"not a graph")
    config = path / "genai_config.json"
    edit(config, lambda one: one["model"]["decoder"].update(filename="other.onnx"))
    inspected = call("inspect", path)
    assert inspected.code == 0, "it is other.onnx that counts"
    edit(config, lambda one: one["model"]["decoder"].update(filename="../onnx/other.onnx"))
    refused(path, "outside its directory")


# MLX -----------------------------------------------------------------------------------------


def test_a_models_own_code_is_not_run(artifact, sentinel, refused):
    path = artifact("mlx")
    sentinel.module(path / "model.py")
    edit(path / "config.json", lambda one: one.update(model_file="model.py"))
    refused(path, "model_file", by=run)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_that_auto_map_names_is_not_run(everything, artifact, sentinel, name):
    """Published models have it in config.json, and a stranger's artifact with it is no worse."""
    path = artifact("mlx")
    for module in ("tokenization_own.py", "configuration_own.py"):
        sentinel.module(path / module)
    code = {"AutoTokenizer": ["tokenization_own.Own", None], "AutoConfig": "configuration_own.Own"}
    edit(path / name, lambda one: one.update(auto_map=code))
    against = ("--against", everything / "model", "--text", everything / "text.txt")
    ended = call("verify", path, *against, "--windows", "1", "-q", "--json")
    # Without its code a tokenizer may well be another.
    assert ended.code == 0 or (name == "tokenizer_config.json" and ended.code == 3), ended
    assert not sentinel.fired


@pytest.mark.parametrize(
    "name, value",
    [
        ("vocab_file", "/etc/passwd"),
        ("tokenizer_class", "MistralCommonBackend"),
        *(
            pytest.param(*setting, marks=pytest.mark.long)  # and see test_admission
            for setting in (
                ("gguf_file", "/etc/passwd"),
                ("init_inputs", ["/etc/passwd"]),
                ("tokenizer_file", "/etc/passwd"),
                ("sp_model_kwargs", {"model_file": "/etc/passwd"}),
                ("tool_parser_type", "../evil"),
            )
        ),
    ],
)
def test_a_tokenizers_settings_name_no_files(artifact, refused, name, value):
    path = artifact("mlx")
    edit(path / "tokenizer_config.json", lambda one: one.update({name: value}))
    refused(path, name, "tokenizer_config.json")


# OpenVINO ------------------------------------------------------------------------------------


def test_a_graph_with_an_operator_of_an_extension_is_not_loaded(artifact, refused):
    path = artifact("openvino") / "openvino_tokenizer.xml"
    text = path.read_text()
    assert 'type="BPETokenizer" version="extension"' in text
    path.write_text(text.replace('type="BPETokenizer"', 'type="Stranger"', 1))
    refused(path.parent, "extension:Stranger")


def test_a_graph_that_openvino_genai_finds_by_name_is_not_loaded(artifact, refused):
    path = artifact("openvino")
    shutil.copy(path / "openvino_tokenizer.xml", path / "openvino_text_embeddings_model.xml")
    refused(path, "openvino_text_embeddings_model.xml")


# llama.cpp -----------------------------------------------------------------------------------

ABORTS = {
    "no rope type": {"phi3.rope.scaling.type": gguf_text("nonsense")},
    "a million experts": {
        "phi3.expert_count": uint32(10**6),
        "phi3.expert_used_count": uint32(2),
    },
    "another tokenizer model": {"tokenizer.ggml.model": gguf_text("llama")},
    "no tokenizer": {"tokenizer.ggml.model": gguf_text("no_vocab")},
}


@pytest.mark.parametrize("fault", ABORTS)
def test_a_gguf_that_llama_cpp_aborts_on_fails_in_a_sentence(artifact, refused, fault):
    path = artifact("gguf")
    (file,) = path.glob("*.gguf")
    file.write_bytes(with_fields(file.read_bytes(), ABORTS[fault]))
    refused(path, "llama.cpp ended while it", "SIGABRT", by=run)


def test_seven_rotary_dimensions_are_told(artifact, refused):
    path = artifact("gguf")
    (file,) = path.glob("*.gguf")
    changed = with_fields(file.read_bytes(), {"phi3.rope.dimension_count": uint32(7)})
    file.write_bytes(changed)
    refused(path, "7 rotary dimensions")


# Any -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["mlx", "onnx"])
def test_modules_beside_an_artifact_are_not_imported(everything, artifact, sentinel, target):
    """Neither from its directory as the working directory, nor by name."""
    path = artifact(target)
    for name in ("json", "numpy", "typing", "phiquant", "onnxruntime", "transformers", "openvino"):
        sentinel.module(path / f"{name}.py")
    against = ("--against", everything / "model", "--text", everything / "text.txt")
    command = [sys.executable, "-P", "-m", "phiquant", "verify", ".", *map(str, against)]
    ended = subprocess.run(
        [*command, "--windows", "1", "-q"],
        cwd=path,
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert not sentinel.fired


@pytest.mark.parametrize("target", ["mlx", "onnx", "openvino"])
def test_links_out_of_the_directory_are_not_followed_by_a_runtime(artifact, everything, target):
    path = artifact(target)
    outside = path.parent / "outside.json"
    (path / "tokenizer_config.json").rename(outside)
    (path / "tokenizer_config.json").symlink_to(outside)
    ended = call("verify", path, "--against", everything / "model", "-q")
    assert_refused(ended, 2, "tokenizer_config.json is a link to")
