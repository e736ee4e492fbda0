"""GGUF files that are right, and files made by hand that are not."""

import struct

import gguf
import numpy as np
import pytest
from gguf_models import tiny_checkpoint, write_gguf

from phiquant.errors import ArtifactError, TokenizerError
from phiquant.targets.gguf import TARGET
from phiquant.targets.gguf.file import read_gguf
from tiny_models import longrope, write_tiny_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A LongRoPE model as F32."""
    root = tmp_path_factory.mktemp("gguf")
    checkpoint = tiny_checkpoint(root / "tiny model", partial_rotary_factor=0.75, **longrope(12))
    write_gguf(checkpoint, root / "out", precision="fp32")
    return checkpoint, root / "out"


def test_the_package_gguf_reads_what_was_written(made):
    checkpoint, directory = made
    path = directory / "tiny-model-F32.gguf"
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert tensors.keys() == {row.name for row in TARGET.open(path).entries()}
    weight = checkpoint.weight("model.layers.1.mlp.down_proj.weight")
    assert np.array_equal(tensors["blk.1.ffn_down.weight"].data, weight)
    assert all(tensor.data_offset % 32 == 0 for tensor in reader.tensors)
    long = np.float32(checkpoint.architecture.rope.long.long_factors)
    assert np.array_equal(tensors["rope_factors_long.weight"].data, long)
    assert reader.fields["general.architecture"].contents() == "phi3"
    assert reader.fields["general.name"].contents() == "Tiny Model"


def test_an_artifact_reads_back_exactly(made):
    checkpoint, directory = made
    for path in (directory, directory / "tiny-model-F32.gguf"):
        artifact = TARGET.open(path)
        assert artifact.type == "F32" and artifact.path == directory
        for weight in checkpoint.architecture.weights():
            assert np.array_equal(artifact.weight(weight.name), checkpoint.weight(weight.name))
        part = artifact.weight("lm_head.weight", 7, 19)
        assert np.array_equal(part, checkpoint.weight("lm_head.weight", 7, 19))
        assert artifact.weight("lm_head.weight", 500, 900).shape == (12, 64)


def test_an_artifact_knows_its_architecture(made):
    checkpoint, directory = made
    ours, theirs = TARGET.open(directory).architecture, checkpoint.architecture
    assert ours.weights() == theirs.weights()
    assert (ours.heads, ours.kv_heads, ours.head_size) == (4, 2, 16)
    assert (ours.max_positions, ours.sliding_window) == (256, None)
    assert ours.norm_epsilon == np.float32(theirs.norm_epsilon)
    assert (ours.rope.theta, ours.rope.dimensions) == (10000.0, 12)
    assert ours.rope.long.original_positions == 64
    assert np.float32(ours.rope.long.attention_factor) == np.float32(
        theirs.rope.long.attention_factor
    )
    assert ours.rope.long.short_factors == tuple(
        np.float32(theirs.rope.long.short_factors).tolist()
    )


def test_the_same_input_gives_the_same_bytes(made, tmp_path):
    checkpoint, directory = made
    write_gguf(checkpoint, tmp_path / "again", precision="fp32")
    name = "tiny-model-F32.gguf"
    assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()


def test_a_checkpoint_without_a_tokenizer_is_refused_before_anything_is_written(tmp_path):
    from phiquant.phi.checkpoint import Checkpoint

    checkpoint = Checkpoint.open(write_tiny_checkpoint(tmp_path / "bare"))
    with pytest.raises(TokenizerError):
        write_gguf(checkpoint, tmp_path / "out", precision="fp32")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_path_is_recognised_by_what_it_holds(made, tmp_path):
    _, directory = made
    assert TARGET.recognises(directory)
    assert TARGET.recognises(directory / "tiny-model-F32.gguf")
    (tmp_path / "fake.gguf").write_bytes(b"PK\3\4")
    assert not TARGET.recognises(tmp_path / "fake.gguf")
    assert not TARGET.recognises(tmp_path / "absent")


def test_a_model_in_several_files_is_one_artifact(made, tmp_path):
    checkpoint, _ = made
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "phi3", split_max_tensors=5)
    writer.add_uint32("phi3.embedding_length", 64)
    for weight in checkpoint.architecture.weights():
        values = checkpoint.weight(weight.name)
        name = f"t{len(writer.tensors)}.{weight.name}"
        if weight.name == "model.norm.weight":
            name = "output_norm.weight"
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 1
    for path in (tmp_path, parts[-1]):
        artifact = TARGET.open(path)
        assert len(artifact.entries()) == len(checkpoint.architecture.weights())
        assert np.array_equal(
            artifact.weight("model.norm.weight"), checkpoint.weight("model.norm.weight")
        )
    parts[1].unlink()
    with pytest.raises(ArtifactError, match="missing: x-00002"):
        TARGET.open(parts[0])


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors=0, fields=0, version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, tensors, fields)


def tensor(name="t", extents=(32,), kind=0, offset=0):
    shape = struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
    return text(name) + shape + struct.pack("<IQ", kind, offset)


PADDING = b"\0" * 256

MALICIOUS = {
    "empty": (b"", "cannot read"),
    "bad magic": (header(magic=b"GGML") + PADDING, "starts with"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + PADDING, "version"),
    "old version": (header(version=1) + PADDING, "version 1"),
    "cut inside the counts": (header()[:12], "inside its header"),
    "2^63 tensors": (header(tensors=1 << 63) + PADDING, "claims"),
    "2^40 fields": (header(fields=1 << 40) + PADDING, "claims"),
    "endless key": (header(fields=1) + struct.pack("<Q", 1 << 62) + PADDING, "inside its header"),
    "unknown value type": (header(fields=1) + text("k") + struct.pack("<I", 99) + PADDING, "99"),
    "endless array": (
        header(fields=1) + text("k") + struct.pack("<IIQ", 9, 0, 1 << 40) + PADDING,
        "elements in k",
    ),
    "endless strings": (
        header(fields=1) + text("k") + struct.pack("<IIQ", 9, 8, 1 << 40) + PADDING,
        "elements in k",
    ),
    "nested array": (
        header(fields=1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + PADDING,
        "unsupported type",
    ),
    "zero alignment": (
        header(fields=1) + text("general.alignment") + struct.pack("<II", 4, 0) + PADDING,
        "alignment",
    ),
    "no dimensions": (header(tensors=1) + tensor(extents=()) + PADDING, "0 dimensions"),
    "empty extent": (header(tensors=1) + tensor(extents=(0,)) + PADDING, "shape"),
    "unknown type": (header(tensors=1) + tensor(kind=77) + PADDING, "type 77"),
    "half a block": (header(tensors=1) + tensor(extents=(40,), kind=8) + PADDING, "shape"),
    "beyond the file": (header(tensors=1) + tensor(offset=1 << 20) + PADDING, "cut off"),
    "larger than all memory": (
        header(tensors=1) + tensor(extents=(1 << 62, 1 << 62)) + PADDING,
        "cut off",
    ),
    "off the alignment": (header(tensors=1) + tensor(offset=7) + PADDING, "off the alignment"),
    "twice": (header(tensors=2) + tensor() + tensor(offset=128) + PADDING * 2, "twice"),
    "overlapping": (header(tensors=2) + tensor() + tensor("u", offset=64) + PADDING, "overlap"),
}


@pytest.mark.parametrize("fault", MALICIOUS)
def test_a_lying_file_is_one_sentence(fault, tmp_path):
    data, says = MALICIOUS[fault]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=says) as raised:
        TARGET.open(path)
    assert "bad.gguf" in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_cut_anywhere_is_refused(made, tmp_path):
    whole = (made[1] / "tiny-model-F32.gguf").read_bytes()
    for keep in (5, 100, 5000, len(whole) // 2, len(whole) - 64):
        path = tmp_path / "cut.gguf"
        path.write_bytes(whole[:keep])
        with pytest.raises(ArtifactError):
            read_gguf(path)


def test_damaged_headers_never_escape_as_other_errors(made, tmp_path):
    whole = (made[1] / "tiny-model-F32.gguf").read_bytes()
    header_end = min(tensor.offset for tensor in read_gguf(made[1] / "tiny-model-F32.gguf").tensors)
    random = np.random.default_rng(11)
    path = tmp_path / "damaged.gguf"
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        # The fields before the long vocabulary, or the tensor infos at the header's end.
        place = random.integers(24, 900) if random.random() < 0.5 else -1
        if place < 0:
            place = random.integers(header_end - 1400, header_end)
        damaged[place] = random.integers(256)
        path.write_bytes(damaged)
        try:
            artifact = TARGET.open(path)
            _ = artifact.architecture
            artifact.weight("model.norm.weight")
        except ArtifactError:
            refused += 1
    assert refused > 50


def test_what_is_no_phi3_can_be_listed_but_not_run(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    artifact = TARGET.open(tmp_path)
    assert [entry.shape for entry in artifact.entries()] == [(4, 32)]
    assert artifact.type == "unknown"
    with pytest.raises(ArtifactError, match="phi3"):
        _ = artifact.architecture
    with pytest.raises(ArtifactError, match="no tensor for lm_head"):
        artifact.weight("lm_head.weight")


def test_a_directory_with_two_models_wants_a_choice(tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(header() + PADDING)
    with pytest.raises(ArtifactError, match="name the file"):
        TARGET.open(tmp_path)
    with pytest.raises(ArtifactError, match="expected a GGUF file"):
        TARGET.open(tmp_path / "c.gguf")
