"""Names that tools change: put right where no weight is changed, and told where one may be.

transformers 5.23 reads names without `model.`, names with it twice, and saved rotary tables; what
wrappers put into names it does not take off.
"""

import numpy as np
import pytest

from phiquant.errors import CheckpointError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.phi.tensor_names import WRAPPERS
from tiny_models import tiny_config, tiny_weights, write_tiny_checkpoint

TOKENS = np.arange(3, 20, dtype=np.int32)
WEIGHTS = tiny_weights(tiny_config())


def renamed(rename, weights=WEIGHTS):
    return {rename(name): one for name, one in weights.items()}


def opened(directory, weights, **changes):
    return Checkpoint.open(write_tiny_checkpoint(directory, weights=weights, **changes))


RENAMINGS = {
    **{word: lambda name, word=word: f"{word}.{name}" for word in WRAPPERS},
    "_orig_mod.module": lambda name: f"_orig_mod.module.{name}",
    "layers compiled one by one": lambda name: name.replace(".self", "._orig_mod.self"),
    "layers checkpointed": lambda name: name.replace(".mlp", "._checkpoint_wrapped_module.mlp"),
    "base_model.model": lambda name: f"base_model.model.{name}",
    "without model": lambda name: name.removeprefix("model."),
    "model twice": lambda name: f"model.{name}",
}


@pytest.mark.parametrize("kind", RENAMINGS)
def test_names_that_say_nothing_of_the_weights_are_put_right(tmp_path, kind):
    checkpoint = opened(tmp_path / "renamed", renamed(RENAMINGS[kind]))
    plain = opened(tmp_path / "plain", WEIGHTS)
    assert set(checkpoint.tensors) == set(plain.tensors)
    assert all(name == tensor.name for name, tensor in checkpoint.tensors.items())
    np.testing.assert_array_equal(
        Reference(checkpoint).logits(TOKENS), Reference(plain).logits(TOKENS)
    )
    assert checkpoint.notes and plain.notes == ()


def test_the_note_names_the_prefix_and_the_tool(tmp_path):
    checkpoint = opened(tmp_path, renamed(RENAMINGS["_orig_mod"]))
    assert checkpoint.notes == (
        "_orig_mod., which torch.compile adds, was taken off the names of 15 tensors",
    )


def test_a_tied_model_without_its_head(tmp_path):
    weights = tiny_weights(tiny_config(tie_word_embeddings=True))
    checkpoint = opened(
        tmp_path, renamed(RENAMINGS["without model"], weights), tie_word_embeddings=True
    )
    assert set(checkpoint.tensors) == set(weights)


def test_rotary_tables_of_older_checkpoints_are_left_out(tmp_path):
    table = np.ones(8, np.float32)
    names = ("model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq")
    checkpoint = opened(tmp_path, WEIGHTS | dict.fromkeys(names, table))
    assert set(checkpoint.tensors) == set(WEIGHTS)
    assert checkpoint.notes[0].startswith("stored rotary tables (inv_freq) were left out")


LORA = "base_model.model.model.layers.{}.self_attn.qkv_proj.lora_{}.default.weight"
ADAPTERS = {
    "an adapter alone": {LORA.format(n, ab): np.ones((2, 2), "f4") for n in (0, 1) for ab in "AB"},
    "an adapted model": renamed(
        lambda name: f"base_model.model.{name}".replace("qkv_proj.", "qkv_proj.base_layer.")
    )
    | {LORA.format(n, ab): np.ones((2, 2), "f4") for n in (0, 1) for ab in "AB"},
    "saved modules": WEIGHTS
    | {"base_model.model.lm_head.modules_to_save.default.weight": WEIGHTS["lm_head.weight"]},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_that_is_not_merged_is_refused(tmp_path, kind):
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path, ADAPTERS[kind])
    message = str(caught.value)
    assert "model.safetensors holds an adapter that is not merged" in message
    assert "merge_and_unload()" in message
    assert len(message) < 500


@pytest.mark.parametrize("prefix", ["language_model.", "student.network."])
def test_another_prefix_is_named_with_what_to_do(tmp_path, prefix):
    others = {"vision.patch.weight": np.ones((2, 2), "f4")} if "language" in prefix else {}
    with pytest.raises(CheckpointError) as caught:
        opened(tmp_path, renamed(lambda name: prefix + name) | others)
    message = str(caught.value)
    assert f"their names begin with {prefix} (" in message
    assert "take the prefix off" in message
    assert len(message) < 400


def test_a_prefix_before_a_few_names_is_no_prefix_of_all(tmp_path):
    few = {name: one for name, one in WEIGHTS.items() if "lm_head" in name or "norm" in name}
    others = {name: one for name, one in WEIGHTS.items() if name not in few}
    with pytest.raises(CheckpointError, match=r"not part of the architecture: old\.model\.layers"):
        opened(tmp_path, others | {f"old.{name}": one for name, one in few.items()})


def test_a_tensor_stored_with_and_without_the_wrapper(tmp_path):
    doubled = WEIGHTS | {"_orig_mod.lm_head.weight": WEIGHTS["lm_head.weight"]}
    with pytest.raises(
        CheckpointError, match=r"_orig_mod\.lm_head\.weight and lm_head\.weight are"
    ):
        opened(tmp_path, doubled)


def test_an_index_goes_by_the_names_that_are_stored(tmp_path):
    checkpoint = opened(tmp_path, renamed(RENAMINGS["module"]), shards=2)
    assert set(checkpoint.tensors) == set(WEIGHTS)
