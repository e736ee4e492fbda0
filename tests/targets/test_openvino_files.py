"""The directory: tokenizer models, text files, reading back, and damage."""

import json

import numpy as np
import pytest
from openvino_tiny import tiny_source, write_artifact

from parity_corpus import random_texts
from phiquant.errors import ArtifactError, TokenizerError
from phiquant.evaluation.inspection import inspect
from phiquant.phi.tokenizer.tokenizer import read_tokenizer
from phiquant.targets.openvino import TARGET
from phiquant.targets.openvino.tokenizer_ir import SAMPLES, build_tokenizer, check_parity
from published_tokenizers import write_phi_3_5_mini, write_phi_4, write_phi_4_mini

pytest.importorskip("openvino_genai")
pytest.importorskip("openvino_tokenizers")


@pytest.fixture(scope="module", params=["int4-asym-g32", "int4-sym-channel", "fp16"])
def artifact(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    checkpoint = tiny_source(directory / "source", tie_word_embeddings=True)
    plan = write_artifact(checkpoint, directory / "artifact", type=request.param)
    return checkpoint, plan, directory / "artifact"


def test_what_is_read_is_what_was_planned(artifact):
    checkpoint, plan, path = artifact
    opened = TARGET.open(path)
    assert opened.type == plan.type
    assert opened.architecture == checkpoint.architecture
    entries = [(entry.name, entry.type, entry.nbytes) for entry in opened.entries()]
    assert entries == [(row.source, row.grid, row.nbytes) for row in plan.rows]


def test_weights_are_what_the_grid_makes_of_them(artifact):
    checkpoint, plan, path = artifact
    opened = TARGET.open(path)
    for row in plan.rows:
        weights = checkpoint.weight(row.source).reshape(-1, row.shape[-1])
        grid = TARGET.grids[row.grid]
        expected = grid.decode(grid.encode(weights), row.shape[-1]).reshape(row.shape)
        np.testing.assert_array_equal(opened.weight(row.source), expected)
        np.testing.assert_array_equal(opened.weight(row.source, 3, 8), expected[3:8])


def test_it_is_recognised_and_inspected(artifact):
    _, plan, path = artifact
    assert inspect(path).type == inspect(path / "openvino_model.xml").type == plan.type
    assert not TARGET.recognises(path / "openvino_tokenizer.xml")
    assert not TARGET.recognises(path.parent / "source")


def test_the_text_files(artifact):
    checkpoint, _, path = artifact
    names = {file.name for file in path.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "openvino_config.json",
        "openvino_tokenizer.xml",
        "openvino_detokenizer.xml",
        "tokenizer.json",
    }
    ends = json.loads((path / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = read_tokenizer(path, checkpoint.architecture.vocabulary_size)
    assert tuple(ends) == tokenizer.special.ends


def test_what_optimum_intel_reads_of_the_weights(artifact):
    _, plan, path = artifact
    content = json.loads((path / "openvino_config.json").read_text())
    bits = {"int4-asym-g32": 4, "int4-sym-channel": 4, "fp16": None}[plan.type]
    assert content["dtype"] == (f"int{bits}" if bits else "fp16")
    assert content.get("quantization_config", {}).get("bits") == bits
    assert content.get("quantization_config", {}).get("dtype") == (f"int{bits}" if bits else None)


@pytest.mark.parametrize("saved_by, told", [("4.45.0", "4.45.0"), (None, "5.23.0")])
def test_the_version_of_transformers_is_the_checkpoints(tmp_path, saved_by, told):
    changes = {} if saved_by is None else {"transformers_version": saved_by}
    write_artifact(tiny_source(tmp_path / "source", **changes), tmp_path / "out", type="fp16")
    content = json.loads((tmp_path / "out" / "openvino_config.json").read_text())
    assert content["transformers_version"] == told


def test_a_file_cut_short_is_refused(artifact, tmp_path):
    path = artifact[2]
    for name in ("config.json", "openvino_model.xml", "openvino_model.bin"):
        (tmp_path / name).write_bytes((path / name).read_bytes())
    binary = tmp_path / "openvino_model.bin"
    binary.write_bytes(binary.read_bytes()[:-64])
    with pytest.raises(ArtifactError, match="cut short"):
        TARGET.open(tmp_path)
    (tmp_path / "openvino_model.xml").write_text("<net><layers>")
    with pytest.raises(ArtifactError, match="no OpenVINO model"):
        TARGET.open(tmp_path)
    binary.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        TARGET.open(tmp_path)


@pytest.mark.parametrize("write", [write_phi_3_5_mini, write_phi_4, write_phi_4_mini])
def test_published_tokenizers_agree_with_the_tokenizers_library(write, tmp_path):
    tokenizer = read_tokenizer(tmp_path, write(tmp_path))
    models = build_tokenizer(tokenizer)
    # A byte piece written out as text ("<0x41>") is the one thing that is taken for the byte.
    texts = [text for text in random_texts(60, 11) if "<0x" not in text]
    check_parity(models, tokenizer, [*SAMPLES, *texts])


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_the_runner_tokenizes_as_the_tokenizers_library(kind, tmp_path):
    checkpoint = tiny_source(tmp_path / "source", kind)
    write_artifact(checkpoint, tmp_path / "artifact", type="int8-sym-channel")
    tokenizer = read_tokenizer(tmp_path / "source", 512)
    special = tokenizer.definition.added[0].text
    with TARGET.runner(tmp_path / "artifact") as runner:
        for text in (*SAMPLES, f"one{special} two"):
            assert runner.tokenize(text) == tokenizer.encode(text)


def test_a_tokenizer_that_differs_is_refused(tmp_path):
    tokenizer = read_tokenizer(tmp_path, write_phi_4(tmp_path))
    models = build_tokenizer(tokenizer)
    other = tmp_path / "other"
    other.mkdir()
    different = read_tokenizer(other, write_phi_3_5_mini(other))
    with pytest.raises(TokenizerError, match="cannot be represented"):
        check_parity(models, different)


def test_the_same_request_gives_the_same_bytes(tmp_path):
    checkpoint = tiny_source(tmp_path / "source")
    for name in ("one", "other"):
        write_artifact(checkpoint, tmp_path / name, type="int4-sym-g32")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes(), file.name
