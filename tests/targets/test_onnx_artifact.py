"""Reading ONNX artifacts: ours, the genai builder's, and damaged ones."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx_tiny import some_tokens, tiny_source, write_artifact

from phiquant.errors import ArtifactError
from phiquant.evaluation.structure import check_extra, check_metadata, check_weights
from phiquant.phi.reference import Reference
from phiquant.targets.onnx import TARGET
from tiny_models import longrope

ir = pytest.importorskip("onnx_ir")

GOLDEN = Path(__file__).parent / "golden"
SHAPE = {"dtype": "F32", "num_attention_heads": 4, "num_key_value_heads": 2}
BUILDERS = {
    "genai-builder-tied-longrope": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "tie_word_embeddings": True,
        **SHAPE,
        **longrope(16, original=32, maximum=64),
    },
    "genai-builder-untied": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "rope_theta": 5e5,
        "max_position_embeddings": 64,
        "original_max_position_embeddings": 64,
        "head_dim": 16,
        **SHAPE,
    },
}
"""Artifacts that onnxruntime-genai 0.18's builder made (int4, cpu), and what of."""


@pytest.mark.parametrize("name", BUILDERS)
def test_the_genai_builders_artifacts_are_read(tmp_path, name):
    source = tiny_source(tmp_path / "source", **BUILDERS[name])
    assert TARGET.recognises(GOLDEN / name)
    artifact = TARGET.open(GOLDEN / name)
    assert artifact.type == "int4-b32-sym"
    assert artifact.architecture.tied_head == source.architecture.tied_head
    checked = [check_metadata(artifact.architecture, source.architecture)]
    errors, more = check_weights(artifact, source)
    checked += [*more, check_extra(artifact, TARGET, source)]
    assert [check.finding for check in checked if check.failed] == []
    assert 0.01 < errors.relative < 0.1


@pytest.mark.parametrize("name", BUILDERS)
def test_the_genai_builders_artifacts_compute_what_is_read(tmp_path, name):
    """Its products round activations to int8, hence the tolerance."""
    pytest.importorskip("onnxruntime_genai")
    artifact = TARGET.open(GOLDEN / name)
    with TARGET.runner(GOLDEN / name) as runner:
        for length in (20, 32, 33, 50):
            wanted = Reference(artifact).logits(some_tokens(length))
            logits = runner.logits(some_tokens(length))
            assert np.abs(logits - wanted).max() < 0.15 * wanted.std()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A source and artifacts of it in every storage form."""
    directory = tmp_path_factory.mktemp("onnx")
    fields = longrope(32, original=32) | {"tie_word_embeddings": True, "sliding_window": 40}
    source = tiny_source(directory / "source", dtype="F32", **fields)
    for name, kind, options in (
        ("fp32", "fp32", {}),
        ("fused", "int4-b32", {}),
        ("standard", "int4-b32", {"qdq": "true"}),
        ("symmetric", "int4-b64-sym", {"qdq": "true"}),
    ):
        write_artifact(source, directory / name, kind, band=45, **options)
    return source, directory


@pytest.mark.parametrize("name", ["fp32", "fused", "standard", "symmetric"])
def test_every_storage_form_decodes_to_what_was_planned(made, name):
    source, directory = made
    artifact = TARGET.open(directory / name)
    recipe_plan = {entry.name: entry for entry in artifact.entries()}
    for weight in source.architecture.weights():
        true = source.weight(weight.name)
        whole = artifact.weight(weight.name)
        assert whole.shape == weight.shape
        if len(weight.shape) == 1 or name == "fp32":
            np.testing.assert_array_equal(whole, true)
            continue
        grid = TARGET.grids[recipe_plan[weight.name].type]
        np.testing.assert_array_equal(whole, grid.decode(grid.encode(true), weight.shape[1]))
        for first, last in ((0, 1), (3, 10), (4, None), (weight.shape[0] - 1, None)):
            band = artifact.weight(weight.name, first, last)
            np.testing.assert_array_equal(band, whole[first:last])
    assert not check_metadata(artifact.architecture, source.architecture).failed
    assert not check_extra(artifact, TARGET, source).failed
    with pytest.raises(ArtifactError, match="no weight"):
        artifact.weight("lm_head.weight")


@pytest.mark.parametrize("name", ["fused", "standard"])
def test_metadata_are_the_graphs_own(made, name):
    """Caches that are not the stated rotary embedding's are found out."""
    source, directory = made
    artifact = TARGET.open(directory / name)
    epsilon = artifact.architecture.norm_epsilon
    assert epsilon == pytest.approx(source.architecture.norm_epsilon)
    assert artifact.architecture == replace(source.architecture, norm_epsilon=epsilon)
    other = directory / f"{name}-other"
    if not other.exists():
        shutil.copytree(directory / name, other)
    model = ir.load(other / "model.onnx")
    stated = json.loads(model.metadata_props["phiquant.architecture"])
    stated["rope"]["theta"] = 5e5
    model.metadata_props["phiquant.architecture"] = json.dumps(stated)
    (other / "model.onnx").write_bytes(ir.to_proto(model).SerializeToString())
    with pytest.raises(ArtifactError, match="rotary caches"):
        TARGET.open(other)


def damaged(made, tmp_path, change):
    """A copy of the fused artifact whose graph went through `change`."""
    shutil.copytree(made[1] / "fused", tmp_path / "copy")
    model = ir.to_proto(ir.load(made[1] / "fused" / "model.onnx"))
    change(model)
    (tmp_path / "copy" / "model.onnx").write_bytes(model.SerializeToString())
    return tmp_path / "copy"


def set_location(model, key, value):
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key and tensor.name.endswith("o_proj.weight"):
                entry.value = value


@pytest.mark.parametrize("location", ["../fused/model.onnx.data", "/etc/passwd", "..", "a/b"])
def test_no_path_leads_out_of_the_directory(made, tmp_path, location):
    path = damaged(made, tmp_path, lambda model: set_location(model, "location", location))
    with pytest.raises(ArtifactError, match="outside"):
        TARGET.open(path)


def test_data_beyond_the_file_are_not_read(made, tmp_path):
    path = damaged(made, tmp_path, lambda model: set_location(model, "offset", str(1 << 40)))
    with pytest.raises(ArtifactError, match="complete"):
        TARGET.open(path)
    (path / "model.onnx.data").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        TARGET.open(path)


def test_a_link_out_of_the_directory_is_not_followed(made, tmp_path):
    path = damaged(made, tmp_path, lambda model: None)
    (path / "model.onnx.data").unlink()
    (path / "model.onnx.data").symlink_to(made[1] / "fused" / "model.onnx.data")
    with pytest.raises(ArtifactError, match="outside of the model"):
        TARGET.open(path)


def drop_product(model):
    for node in list(model.graph.node):
        if "down_proj" in node.name:
            model.graph.node.remove(node)


def shrink(model):
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "N" and "o_proj" in node.name:
                attribute.i = 100


@pytest.mark.parametrize(("change", "message"), [(drop_product, "down_proj"), (shrink, "elements")])
def test_graphs_that_are_no_phi_are_refused(made, tmp_path, change, message):
    with pytest.raises(ArtifactError, match=message):
        TARGET.open(damaged(made, tmp_path, change))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", b"not a graph", "no ONNX model"),
        ("genai_config.json", b"{", "not valid JSON"),
        ("genai_config.json", b'{"model": {"type": "whisper"}}', "phi3"),
        ("genai_config.json", b'{"model": {"type": "phi3", "decoder": 3}}', "object"),
        (
            "genai_config.json",
            b'{"model": {"type": "phi3", "decoder": {"filename": "../model.onnx"}}}',
            "outside",
        ),
    ],
)
def test_broken_files_are_refused(made, tmp_path, file, content, message):
    shutil.copytree(made[1] / "fused", tmp_path / "copy")
    (tmp_path / "copy" / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        TARGET.open(tmp_path / "copy")


def test_other_directories_are_not_taken_for_onnx(tmp_path):
    assert not TARGET.recognises(tmp_path)
    (tmp_path / "genai_config.json").write_text("{}")
    assert not TARGET.recognises(tmp_path)
