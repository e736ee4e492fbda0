"""Which files hold the weights where a directory has more than one set of them.

The choices are those that transformers 5.23 was seen to make.
"""

import json

import numpy as np
import pytest

from phiquant.errors import CheckpointError, ConfigError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.source import locate
from tiny_models import tiny_config, tiny_weights, write_safetensors, write_tiny_checkpoint

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
NEW = tiny_weights(tiny_config(), seed=7)
LORA = {"base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight": np.ones((2, 64), "f4")}


def reads(directory, weights):
    """The checkpoint, which must hold `weights`."""
    checkpoint = Checkpoint.open(directory)
    name = "model.layers.1.mlp.down_proj.weight"
    np.testing.assert_allclose(checkpoint.weight(name), weights[name], rtol=2**-8)
    return checkpoint


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "extra.safetensors", SHARDS[0]])
def test_model_safetensors_alone_is_the_model(tmp_path, name):
    write_tiny_checkpoint(tmp_path, weights=NEW)
    write_safetensors(tmp_path / name, LORA)
    checkpoint = reads(tmp_path, NEW)
    assert [path.name for path in checkpoint.files] == ["model.safetensors"]
    (note,) = checkpoint.notes
    assert note.startswith(
        f"the weights are those of model.safetensors; beside them, and not read: {name}"
    )
    assert ("an adapter has to be merged" in note) == name.startswith("adapter")


def test_a_broken_file_beside_the_model_does_not_matter(tmp_path):
    write_tiny_checkpoint(tmp_path, weights=NEW)
    (tmp_path / "other.safetensors").write_bytes(b"none")
    reads(tmp_path, NEW)


def test_model_safetensors_goes_before_an_index_and_its_shards(tmp_path):
    write_tiny_checkpoint(tmp_path, shards=2, seed=1)
    write_safetensors(tmp_path / "model.safetensors", NEW)
    (note,) = reads(tmp_path, NEW).notes
    for name in (INDEX, *SHARDS):
        assert name in note


def test_stale_weights_that_do_not_fit_are_told_with_what_was_not_read(tmp_path):
    write_tiny_checkpoint(tmp_path, shards=2)
    stale = tiny_weights(tiny_config(num_hidden_layers=1))
    write_safetensors(tmp_path / "model.safetensors", stale)
    with pytest.raises(CheckpointError, match=rf"2, and .* 1 layers; .* not read: {INDEX}, model-"):
        Checkpoint.open(tmp_path)


def test_an_index_of_one_file_is_no_second_set(tmp_path):
    write_tiny_checkpoint(tmp_path, weights=NEW)
    places = dict.fromkeys(NEW, "model.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert reads(tmp_path, NEW).notes == ()


def test_files_that_the_index_does_not_name_are_not_read(tmp_path):
    write_tiny_checkpoint(tmp_path, shards=2, weights=NEW)
    write_safetensors(tmp_path / "consolidated.safetensors", tiny_weights(tiny_config()))
    checkpoint = reads(tmp_path, NEW)
    assert [path.name for path in checkpoint.files] == SHARDS
    (note,) = checkpoint.notes
    assert f"the 2 files that {INDEX} names" in note and "consolidated.safetensors" in note


def test_shards_without_an_index(tmp_path):
    write_tiny_checkpoint(tmp_path, shards=2, weights=NEW)
    (tmp_path / INDEX).unlink()
    assert reads(tmp_path, NEW).notes == ()
    (tmp_path / SHARDS[1]).unlink()
    with pytest.raises(CheckpointError, match=rf"1 of 2 shards .* {SHARDS[1]} is missing"):
        Checkpoint.open(tmp_path)
    (tmp_path / SHARDS[0]).rename(tmp_path / f"model-1-of-{'9' * 200}.safetensors")
    with pytest.raises(CheckpointError, match=r"is missing: download the rest"):
        Checkpoint.open(tmp_path)


def test_a_model_under_another_name_beside_its_adapter(tmp_path):
    write_tiny_checkpoint(tmp_path, weights=NEW)
    (tmp_path / "model.safetensors").rename(tmp_path / "phi.safetensors")
    write_safetensors(tmp_path / "adapter_model.safetensors", LORA)
    (note,) = reads(tmp_path, NEW).notes
    assert "those of phi.safetensors" in note


def test_an_adapter_without_its_model(tmp_path):
    write_tiny_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    write_safetensors(tmp_path / "adapter_model.safetensors", LORA)
    with pytest.raises(
        CheckpointError, match=r"an adapter \(adapter_model\.safetensors\).*`adapter`"
    ):
        Checkpoint.open(tmp_path)


def test_the_directory_of_an_adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match=r"holds an adapter and no model; give the base"):
        Checkpoint.open(tmp_path)


def test_the_file_that_the_config_names(tmp_path):
    write_tiny_checkpoint(tmp_path, transformers_weights="new.safetensors")
    write_safetensors(tmp_path / "new.safetensors", NEW)
    assert "not read: model.safetensors" in reads(tmp_path, NEW).notes[0]
    for name in ("gone.safetensors", "../new.safetensors"):
        write_tiny_checkpoint(tmp_path / "sub", transformers_weights=name)
        with pytest.raises(CheckpointError, match=f"transformers_weights .* names '{name}'"):
            Checkpoint.open(tmp_path / "sub")


def test_the_index_that_the_config_names(tmp_path):
    write_tiny_checkpoint(tmp_path, shards=2, weights=NEW, transformers_weights="new.index.json")
    (tmp_path / INDEX).rename(tmp_path / "new.index.json")
    write_safetensors(tmp_path / "model.safetensors", tiny_weights(tiny_config()))
    assert "the 2 files that new.index.json names" in reads(tmp_path, NEW).notes[0]


def test_a_snapshot_of_the_hubs_cache_is_called_after_the_model(tmp_path):
    snapshot = tmp_path / "models--org--tiny-phi" / "snapshots" / ("0" * 40)
    write_tiny_checkpoint(snapshot)
    assert Checkpoint.open(snapshot).name == locate(snapshot).name == "tiny-phi"
