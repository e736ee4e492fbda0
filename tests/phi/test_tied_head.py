"""A head that config.json ties to the embedding, and that is stored as well.

transformers 5.23 was run on each of these checkpoints: equal matrices are tied, different ones are
not, and one that is stored alone serves as both.
"""

import numpy as np
import pytest

from phiquant.errors import CheckpointError
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from tiny_models import tiny_config, tiny_weights, write_safetensors, write_tiny_checkpoint

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = np.arange(3, 20, dtype=np.int32)


def logits(checkpoint):
    return Reference(checkpoint).logits(TOKENS)


def tied(directory, weights, dtype="BF16", **changes):
    write_tiny_checkpoint(
        directory, dtype=dtype, weights=weights, tie_word_embeddings=True, **changes
    )
    return Checkpoint.open(directory)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_an_equal_head_is_the_embedding(tmp_path, dtype):
    weights = tiny_weights(tiny_config())
    weights[HEAD] = weights[EMBEDDING].copy()
    weights[HEAD][0, 0], weights[EMBEDDING][0, 0] = 0.0, -0.0
    tie = tied(tmp_path / "both", weights, dtype)
    assert tie.architecture.tied_head and HEAD not in tie.tensors
    assert tie.config["tie_word_embeddings"] is True
    (note,) = tie.notes
    assert note == f"{HEAD} is stored beside {EMBEDDING} and equals it: one matrix serves as both"
    del weights[HEAD]
    plain = tied(tmp_path / "one", weights, dtype)
    assert plain.notes == () and plain.architecture == tie.architecture
    np.testing.assert_array_equal(logits(tie), logits(plain))


@pytest.mark.parametrize("place", [(0, 0), (511, 63)])
def test_a_different_head_unties_the_model(tmp_path, place):
    weights = tiny_weights(tiny_config())
    weights[HEAD] = weights[EMBEDDING].copy()
    weights[HEAD][place] += 1.0
    tie = tied(tmp_path / "tied", weights)
    assert not tie.architecture.tied_head and HEAD in tie.tensors
    assert tie.config["tie_word_embeddings"] is False
    (note,) = tie.notes
    assert "stored with different values" in note and "as transformers does" in note
    plain = Checkpoint.open(write_tiny_checkpoint(tmp_path / "untied", weights=weights))
    assert plain.notes == () and plain.architecture == tie.architecture
    np.testing.assert_array_equal(logits(tie), logits(plain))


def test_matrices_of_several_bands_are_compared_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("phiquant.phi.weights.BAND_WEIGHTS", 64 * 100)
    weights = tiny_weights(tiny_config())
    weights[HEAD] = weights[EMBEDDING].copy()
    assert tied(tmp_path / "equal", weights).architecture.tied_head
    weights[HEAD][-1, -1] += 1.0
    assert not tied(tmp_path / "different", weights).architecture.tied_head


def test_a_head_of_another_type_is_compared_by_its_values(tmp_path):
    weights = tiny_weights(tiny_config())
    weights[HEAD] = weights[EMBEDDING].copy()
    directory = write_tiny_checkpoint(tmp_path, shards=2, weights=weights, tie_word_embeddings=True)
    for path in directory.glob("*.safetensors*"):
        path.unlink()
    embedding = weights[EMBEDDING].astype(np.float16).astype(np.float32)
    others = {name: one for name, one in weights.items() if name != HEAD}
    write_safetensors(directory / "a.safetensors", others | {EMBEDDING: embedding}, "F16")
    write_safetensors(directory / "b.safetensors", {HEAD: embedding}, "F32")
    assert Checkpoint.open(directory).architecture.tied_head
    write_safetensors(directory / "b.safetensors", {HEAD: weights[EMBEDDING]}, "F32")
    assert not Checkpoint.open(directory).architecture.tied_head


def test_a_head_alone_is_the_embedding_too(tmp_path):
    weights = tiny_weights(tiny_config())
    matrix = weights[EMBEDDING]
    alone = {name: one for name, one in weights.items() if name != EMBEDDING} | {HEAD: matrix}
    tie = tied(tmp_path / "head", alone)
    assert tie.architecture.tied_head
    assert tie.notes == (
        f"{HEAD} alone is stored, and config.json ties the two: it is the embedding as well",
    )
    del weights[HEAD]
    plain = tied(tmp_path / "embedding", weights)
    assert list(tie.tensors) == [name if name != HEAD else EMBEDDING for name in alone]
    assert set(tie.tensors) == set(plain.tensors)
    np.testing.assert_array_equal(logits(tie), logits(plain))


def test_a_head_of_another_shape_or_type_is_refused(tmp_path):
    weights = tiny_weights(tiny_config())
    with pytest.raises(CheckpointError, match=r"lm_head\.weight \(expected \[512, 64\], found \[5"):
        tied(tmp_path / "shape", weights | {HEAD: weights[HEAD][:500]})
    write_tiny_checkpoint(tmp_path / "type", weights=weights, tie_word_embeddings=True)
    path = tmp_path / "type" / "model.safetensors"
    before, after = (f'"lm_head.weight": {{"dtype": "{name}' for name in ('BF16"', 'I16" '))
    path.write_bytes(path.read_bytes().replace(before.encode(), after.encode()))
    with pytest.raises(
        CheckpointError, match=r"not one of BF16, F16, F32: lm_head\.weight \(I16\)"
    ):
        Checkpoint.open(tmp_path / "type")


def test_an_untied_model_is_left_alone(tmp_path):
    weights = tiny_weights(tiny_config())
    weights[HEAD] = weights[EMBEDDING].copy()
    checkpoint = Checkpoint.open(write_tiny_checkpoint(tmp_path, weights=weights))
    assert not checkpoint.architecture.tied_head and HEAD in checkpoint.tensors
    assert checkpoint.notes == ()
