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
        found = Checkpoint.open(directory).weight(DOWN)
        np.testing.assert_array_equal(
            found.view(np.uint32), stored(weights[DOWN], dtype).view(np.uint32)
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


def test_a_head_in_a_tied_model_is_extra(tmp_path):
    weights = tiny_weights(tiny_config())
    write_tiny_checkpoint(tmp_path, weights=weights, tie_word_embeddings=True)
    with pytest.raises(CheckpointError, match=r"not part of the architecture: lm_head\.weight"):
        Checkpoint.open(tmp_path)


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

    @pytest.mark.parametrize("content", ["", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
    def test_the_index_is_no_index(self, directory, index, content):
        index.write_text(content)
        with pytest.raises(CheckpointError, match="weight_map"):
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
