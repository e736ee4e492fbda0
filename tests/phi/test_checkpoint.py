"""Checkpoints that are sound, and every way of not being so."""

import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

from phiquant.errors import CheckpointError, ConfigError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from tiny_models import tiny_config, tiny_weights, to_bf16_bits, write_tiny_checkpoint

DOWN = "model.layers.1.mlp.down_proj.weight"


def stored(weights, dtype):
    """What `weights` are once stored, widened by NumPy alone."""
    if dtype == "BF16":
        return (to_bf16_bits(weights).astype(np.uint32) << 16).view(np.float32)
    return weights.astype({"F16": np.float16, "F32": np.float32}[dtype]).astype(np.float32)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("shards", [1, 3])
def test_reads_every_weight_exactly(tmp_path, dtype, shards):
    checkpoint = Checkpoint.open(write_tiny_checkpoint(tmp_path, dtype=dtype, shards=shards))
    assert checkpoint.dtype == dtype
    assert len(checkpoint.files) == shards
    surveyed = survey(checkpoint)
    for name, weights in tiny_weights(tiny_config()).items():
        expected = stored(weights, dtype)
        np.testing.assert_array_equal(checkpoint.weight(name), expected)
        np.testing.assert_array_equal(checkpoint.weight(name, 3, 9), expected[3:9])
        assert surveyed.largest[name] == np.abs(expected).max()


def test_extreme_values_widen_exactly(tmp_path):
    weights = tiny_weights(tiny_config())
    row = [0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 3.3895314e38, -1.0, 65504.0]
    weights[DOWN][0, : len(row)] = row
    for dtype in ("BF16", "F32"):
        directory = write_tiny_checkpoint(tmp_path / dtype, dtype=dtype, weights=weights)
        widened = Checkpoint.open(directory).weight(DOWN)
        np.testing.assert_array_equal(
            widened.view(np.uint32), stored(weights[DOWN], dtype).view(np.uint32)
        )


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_together(tmp_path, dtype, value):
    weights = tiny_weights(tiny_config())
    weights[DOWN][7, 5] = value
    weights["model.norm.weight"][0] = value
    checkpoint = Checkpoint.open(write_tiny_checkpoint(tmp_path, dtype=dtype, weights=weights))
    with pytest.raises(CheckpointError, match=r"down_proj.weight, model\.norm\.weight"):
        survey(checkpoint)


def test_fp16_range_is_known(tmp_path):
    weights = tiny_weights(tiny_config())
    weights[DOWN][0, 0] = 65519.0
    weights["model.norm.weight"][0] = 65520.0
    surveyed = survey(
        Checkpoint.open(write_tiny_checkpoint(tmp_path, dtype="F32", weights=weights))
    )
    assert surveyed.fits_fp16(DOWN)
    assert not surveyed.fits_fp16("model.norm.weight")


def test_missing_extra_misshaped_and_mistyped_in_one_error(tmp_path):
    weights = tiny_weights(tiny_config())
    del weights["model.norm.weight"]
    weights["model.extra"] = np.zeros(3, np.float32)
    weights[DOWN] = weights[DOWN][:-1]
    write_tiny_checkpoint(tmp_path, dtype="F32", weights=weights)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(tmp_path)
    message = str(caught.value)
    assert "missing: model.norm.weight" in message
    assert "not part of the architecture: model.extra" in message
    assert "expected [64, 96], found [63, 96]" in message
    save_file(
        {name: np.asarray(values, np.int32) for name, values in weights.items()},
        tmp_path / "model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"not one of BF16, F16, F32: .*\(I32\)"):
        Checkpoint.open(tmp_path)


def disagreement(directory, weights, **changes):
    """What is said of `weights` beside a config with `changes`."""
    write_tiny_checkpoint(directory, dtype="F32", weights=weights, **changes)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(directory)
    return str(caught.value)


def test_of_many_names_the_first_few_are_told_and_their_number(tmp_path):
    weights = {f"encoder.{number}": np.zeros(3, np.float32) for number in range(200)}
    message = disagreement(tmp_path, weights)
    assert "missing: model.embed_tokens.weight, " in message
    assert "and 12 more" in message and "and 197 more" in message
    assert len(message) < 500


@pytest.mark.parametrize("layers", [1, 3, 40])
def test_another_number_of_layers_is_told_as_that(tmp_path, layers):
    weights = tiny_weights(tiny_config(num_hidden_layers=layers))
    message = disagreement(tmp_path, weights)
    assert f"num_hidden_layers is 2, and the tensors make {layers} layers" in message
    assert "model.layers" not in message


def test_layers_with_a_gap_are_told_by_name(tmp_path):
    weights = tiny_weights(tiny_config(num_hidden_layers=4))
    weights = {name: one for name, one in weights.items() if "layers.1" not in name}
    assert "missing: model.layers.1.input_layernorm.weight" in disagreement(tmp_path, weights)


def test_a_missing_head_may_be_a_tied_one(tmp_path):
    weights = tiny_weights(tiny_config())
    del weights["lm_head.weight"]
    assert '"tie_word_embeddings": true' in disagreement(tmp_path, weights)


class TestShards:
    @pytest.fixture
    def directory(self, tmp_path):
        return write_tiny_checkpoint(tmp_path, shards=2)

    @pytest.fixture
    def index(self, directory):
        return directory / "model.safetensors.index.json"

    def change(self, index, edit):
        content = json.loads(index.read_text())
        edit(content["weight_map"])
        index.write_text(json.dumps(content))

    def test_a_shard_is_missing(self, directory):
        (directory / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"00002-of-00002.*download"):
            Checkpoint.open(directory)

    def test_the_index_lies_about_a_place(self, directory, index):
        self.change(index, lambda m: m.update({DOWN: "model-00001-of-00002.safetensors"}))
        with pytest.raises(CheckpointError, match=rf"disagree with .* about {DOWN}"):
            Checkpoint.open(directory)

    def test_the_index_forgets_a_tensor(self, directory, index):
        self.change(index, lambda m: m.pop(DOWN))
        with pytest.raises(CheckpointError, match=rf"disagree with .* about {DOWN}"):
            Checkpoint.open(directory)

    def test_the_index_points_outside(self, directory, index):
        self.change(index, lambda m: m.update({DOWN: "../model.safetensors"}))
        with pytest.raises(CheckpointError, match="outside its directory"):
            Checkpoint.open(directory)

    @pytest.mark.parametrize("content", ["{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
    def test_the_index_is_no_index(self, directory, index, content):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="weight_map"):
            Checkpoint.open(directory)

    def test_the_index_names_nothing(self, directory, index):
        index.write_text('{"weight_map": {}}')
        with pytest.raises(CheckpointError, match="names no files"):
            Checkpoint.open(directory)

    def test_a_tensor_is_in_two_shards(self, directory, index):
        index.unlink()
        (directory / "again.safetensors").write_bytes(
            (directory / "model-00001-of-00002.safetensors").read_bytes()
        )
        with pytest.raises(CheckpointError, match=r"is in both again\.safetensors and"):
            Checkpoint.open(directory)


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path, header, body):
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + body)


@pytest.mark.parametrize(
    "lie",
    [
        lambda header: header[DOWN].update(data_offsets=[0, 10**12]),
        lambda header: header[DOWN].update(data_offsets=[-8, 8]),
        lambda header: header[DOWN].update(shape=[2**62, 2**62]),
        lambda header: header[DOWN].update(shape=[64, 97]),
        lambda header: header[DOWN].update(dtype="Q9"),
        lambda header: header[DOWN].pop("dtype"),
        lambda header: header[DOWN].update(
            data_offsets=header["model.norm.weight"]["data_offsets"]
        ),
    ],
    ids=["beyond", "negative", "overflow", "shape", "dtype", "no dtype", "overlap"],
)
def test_a_lying_header_is_refused(tmp_path, lie):
    path = write_tiny_checkpoint(tmp_path) / "model.safetensors"
    header, body = header_of(path)
    lie(header)
    rewrite(path, header, body)
    with pytest.raises(CheckpointError, match="not a sound safetensors file"):
        Checkpoint.open(tmp_path)


def test_a_pointer_of_git_lfs_is_told_from_a_truncated_file(tmp_path):
    path = write_tiny_checkpoint(tmp_path) / "model.safetensors"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4903351912\n"
    )
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a pointer .* `git lfs pull`"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 5000, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = write_tiny_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a sound safetensors file"):
        Checkpoint.open(tmp_path)


def test_a_header_length_beyond_the_file_is_refused(tmp_path):
    path = write_tiny_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="not a sound safetensors file"):
        Checkpoint.open(tmp_path)


def test_directories_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="found nothing"):
        Checkpoint.open(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"config\.json"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(tiny_config()))
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors"):
        Checkpoint.open(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model\.bin\).*save_pre"):
        Checkpoint.open(tmp_path)
