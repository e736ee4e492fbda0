"""Reading MLX directories, ours and mlx_lm.convert's, without MLX; and refusing broken ones."""

import json
import shutil

import numpy as np
import pytest
from mlx_tiny import some_tokens, tiny_source, write_artifact
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from phiquant.errors import ArtifactError, ConfigError, PhiquantError
from phiquant.phi.reference import Reference
from phiquant.targets.mlx import TARGET

mlx_lm = pytest.importorskip("mlx_lm")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """mlx_lm.convert's own output with 2 and 6 bits, on BF16 parameters."""
    home = tmp_path_factory.mktemp("mixed")
    source = tiny_source(home / "source", num_hidden_layers=4)
    mlx_lm.convert(
        str(source.directory), str(home / "out"), True, q_group_size=32, quant_predicate="mixed_2_6"
    )
    return source, home / "out"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    home = tmp_path_factory.mktemp("written")
    source = tiny_source(home / "source", dtype="F32")
    write_artifact(source, home / "out", type="4bit-g64")
    return source, home / "out"


@pytest.fixture
def copy(written, tmp_path):
    """A copy of our artifact to damage."""
    shutil.copytree(written[1], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_mixed_conversion_decodes_as_mlx_decodes_it(mixed):
    import mlx.core as mx

    source, directory = mixed
    artifact = TARGET.open(directory)
    assert artifact.type == "2bit-g32"
    assert {entry.type for entry in artifact.entries()} >= {"BF16"}
    assert len({entry.type for entry in artifact.entries()}) == 3
    stored = mx.load(str(directory / "model.safetensors"))
    for entry in artifact.entries():
        module = entry.name.removesuffix(".weight")
        expected = stored[entry.name]
        if f"{module}.scales" in stored:
            scales, biases = stored[f"{module}.scales"], stored[f"{module}.biases"]
            group = entry.shape[1] // scales.shape[1]
            bits = expected.shape[1] * 32 // entry.shape[1]
            expected = mx.dequantize(expected, scales, biases, group, bits)
        expected = np.array(expected.astype(mx.float32))
        decoded = artifact.weight(entry.name)
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, expected)
        np.testing.assert_array_equal(artifact.weight(entry.name, 5, 9), expected[5:9])
    total = sum(entry.nbytes for entry in artifact.entries())
    assert total == sum(array.nbytes for array in stored.values())
    assert [entry.name for entry in artifact.entries()] == [
        weight.name for weight in source.architecture.weights()
    ]


def test_a_mixed_conversion_runs_as_decoded(mixed):
    _, directory = mixed
    tokens = some_tokens(12)
    with TARGET.runner(directory) as runner:
        logits = runner.logits(tokens)
    wanted = Reference(TARGET.open(directory)).logits(tokens)
    assert np.abs(logits - wanted).max() < 0.25


def test_the_architecture_reads_back(written):
    source, directory = written
    artifact = TARGET.open(directory)
    assert artifact.architecture == source.architecture
    assert artifact.type == "4bit-g64"
    assert artifact.path == directory


def test_directories_are_recognised(written, mixed, tmp_path):
    assert TARGET.recognises(written[1])
    assert TARGET.recognises(mixed[1])
    write_artifact(written[0], tmp_path / "float", type="bf16")
    assert TARGET.recognises(tmp_path / "float")
    assert not TARGET.recognises(written[0].directory)
    assert not TARGET.recognises(tmp_path)
    assert not TARGET.recognises(tmp_path / "absent")
    assert not TARGET.recognises(written[1] / "config.json")


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(directory, match, kind=ArtifactError):
    with pytest.raises(kind, match=match):
        TARGET.open(directory)


def test_a_truncated_file_is_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    refused(copy, "model.safetensors")


def test_no_weights_are_refused(copy):
    (copy / "model.safetensors").unlink()
    refused(copy, "no model")
    refused(copy / "absent", "directory")


def test_a_missing_or_extra_tensor_is_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    taken = tensors.pop("model.layers.1.mlp.down_proj.scales")
    save_file(tensors, copy / "model.safetensors")
    refused(copy, "layers.1.mlp.down_proj")
    tensors |= {"model.layers.1.mlp.down_proj.scales": taken, "model.extra": taken}
    save_file(tensors, copy / "model.safetensors")
    refused(copy, "model.extra")


def test_shapes_and_widths_that_do_not_fit_are_refused(copy):
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    save_file(tensors | {name: tensors[name][:, :-1].copy()}, copy / "model.safetensors")
    refused(copy, "down_proj")
    save_file(tensors | {name: tensors[name][:-1].copy()}, copy / "model.safetensors")
    refused(copy, "down_proj")
    save_file(tensors | {name: tensors[name].astype(np.int32)}, copy / "model.safetensors")
    refused(copy, "down_proj")


def test_a_config_that_contradicts_the_tensors_is_refused(copy):
    module = "model.layers.0.mlp.down_proj"

    def change(config):
        config["quantization"][module] = {"group_size": 32, "bits": 4, "mode": "affine"}

    edit(copy / "config.json", change)
    refused(copy, "groups of 32")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", 64),
        ("model_type", "llama"),
        ("num_hidden_layers", 3),
        ("phiquant", {"longrope": 3}),
        ("phiquant", []),
        ("quantization", 7),
        ("rope_scaling", {"type": "longrope"}),
        ("rope_scaling", {"type": "longrope", "long_factor": ["a"] * 16, "short_factor": None}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("original_max_position_embeddings", 0),
    ],
)
def test_a_damaged_config_is_a_typed_error_or_harmless(copy, key, value):
    def change(config):
        config[key] = value
        if key == "model_type":
            config["architectures"] = ["LlamaForCausalLM"]

    edit(copy / "config.json", change)
    try:
        assert TARGET.open(copy).served.last
    except PhiquantError as error:
        assert isinstance(error, ArtifactError | ConfigError)
        assert key != "phiquant"
    else:
        assert key in ("phiquant", "original_max_position_embeddings")


def test_every_shard_counts(written, tmp_path, monkeypatch):
    source, whole = written
    monkeypatch.setattr("phiquant.targets.mlx.shards.SHARD_BYTES", 20_000)
    write_artifact(source, tmp_path / "out", type="4bit-g64")
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 3
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    held = {}
    for shard in shards:
        with safe_open(tmp_path / "out" / shard, framework="numpy") as file:
            assert file.metadata() == {"format": "mlx"}
            held |= dict.fromkeys(file.keys(), shard)
    assert index["weight_map"] == held
    expected = load_file(whole / "model.safetensors")
    for name, shard in held.items():
        stored = load_file(tmp_path / "out" / shard)[name]
        np.testing.assert_array_equal(stored, expected[name])
    ours = TARGET.open(tmp_path / "out")
    np.testing.assert_array_equal(
        ours.weight("lm_head.weight"), TARGET.open(whole).weight("lm_head.weight")
    )
    with TARGET.runner(tmp_path / "out") as one, TARGET.runner(whole) as other:
        np.testing.assert_array_equal(one.logits(some_tokens(5)), other.logits(some_tokens(5)))


def test_an_unknown_weight_is_refused(written):
    with pytest.raises(ArtifactError, match="no weight"):
        TARGET.open(written[1]).weight("model.layers.9.mlp.down_proj.weight")


def test_the_last_logits_are_those_of_the_whole(mixed, monkeypatch):
    """Also where they reach across the pieces in which a long sequence is run."""
    monkeypatch.setattr("phiquant.targets.mlx.runner.PIECE", 64)
    tokens = some_tokens(82)
    with TARGET.runner(mixed[1]) as runner:
        whole = runner.logits(tokens)
        for last in (1, 18, 40, 82):
            np.testing.assert_array_equal(runner.logits(tokens, last=last), whole[-last:])
