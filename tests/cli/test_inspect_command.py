"""`phiquant inspect` on whatever there is, by whoever's hand."""

import json
import struct

import pytest

from command_line import assert_refused, call, run


def test_a_checkpoint(model):
    ended = run("inspect", model, "--json")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out)
    assert (document["format"], document["type"]) == ("checkpoint", "BF16")
    assert document["nbytes"] == 2 * document["weights"]
    assert [share["type"] for share in document["types"]] == ["BF16"]
    assert sum(share["nbytes"] for share in document["types"]) == document["nbytes"]


@pytest.mark.parametrize("target, kind", [("gguf", "Q4_K_M"), ("mlx", "4bit-g64")])
def test_an_artifact(made, target, kind):
    output, document = made
    ended = call("inspect", output / target, "--json")
    assert (ended.code, ended.err) == (0, "")
    printed = json.loads(ended.out)
    (plan,) = [one["plan"] for one in document["artifacts"] if one["plan"]["target"] == target]
    assert printed["type"] == kind
    assert printed["nbytes"] == plan["nbytes"]
    assert printed["record"]["recipe"]["target"] == target
    assert printed["disk"] == sum(path.stat().st_size for path in (output / target).iterdir())


def test_a_file_alone(made):
    (file,) = (made[0] / "gguf").glob("*.gguf")
    ended = call("inspect", file, "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["record"] is None


def test_for_people(made):
    ended = call("inspect", made[0] / "mlx", "--tensors")
    assert ended.code == 0
    for word in ("4bit-g64", "model.layers.1.mlp.down_proj", "vocabulary 512", "bits a weight"):
        assert word in " ".join(ended.out.split())


def test_nothing_to_inspect(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert_refused(call("inspect", tmp_path), 2, "neither a checkpoint")
    assert_refused(call("inspect", tmp_path / "notes.txt"), 2, "neither a checkpoint")
    assert_refused(call("inspect", tmp_path / "absent"), 2, "found nothing")


def gguf_header(*fields, tensors=()):
    """A GGUF file by hand: fields as (key, type number, packed value), tensors packed."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    for key, kind, value in fields:
        out += packed(key) + struct.pack("<I", kind) + value
    return out + b"".join(tensors)


def packed(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


U8, U32, F32, TEXT, ARRAY = 0, 4, 6, 8, 9


def test_a_sparse_file_of_a_terabyte_costs_a_sentence(tmp_path):
    """Every length below is honest: the bytes are there, as a hole in the file."""
    path = tmp_path / "bomb.gguf"
    claims = {
        "array": gguf_header(("a", ARRAY, struct.pack("<IQ", U8, 1 << 39))),
        "string": gguf_header(("a", TEXT, struct.pack("<Q", 1 << 39))),
        "strings": gguf_header(("a", ARRAY, struct.pack("<IQ", TEXT, 1 << 36))),
        "fields": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 35),
        "tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 34, 0),
    }
    for header in claims.values():
        path.write_bytes(header)
        with path.open("r+b") as file:
            file.truncate(1 << 40)
        assert_refused(call("inspect", path), 2, "bomb.gguf")


def test_lying_dimensions_cost_a_sentence(made, tmp_path):
    """Two thousand million layers would be listed one by one, if they were believed."""
    (file,) = (made[0] / "gguf").glob("*.gguf")
    key = packed("phi3.block_count") + struct.pack("<I", U32)
    data = file.read_bytes()
    at = data.index(key) + len(key)
    lying = tmp_path / "lying.gguf"
    for value, words in (
        (2**31 - 1, "2147483647 layers"),
        (2**32 - 1, "block_count"),
        (0, "block_count"),
    ):
        lying.write_bytes(data[:at] + struct.pack("<I", value) + data[at + 4 :])
        assert_refused(call("inspect", lying), 2, words)
    key = packed("phi3.rope.freq_base") + struct.pack("<I", F32)
    at = data.index(key) + len(key)
    lying.write_bytes(data[:at] + struct.pack("<f", float("nan")) + data[at + 4 :])
    assert_refused(call("inspect", lying, "--tensors"), 2, "freq_base")


def test_control_characters_in_names_do_not_reach_the_terminal(made, tmp_path):
    (file,) = (made[0] / "gguf").glob("*.gguf")
    data = file.read_bytes().replace(b"output_norm.weight", b"\x1b]0;owned\x07[/x].wgt", 1)
    assert data != file.read_bytes()
    (tmp_path / "named.gguf").write_bytes(data)
    ended = run("inspect", tmp_path / "named.gguf", "--tensors")
    assert ended.code == 0, ended.err
    assert "]0;owned" in ended.out
    assert "[/x].wgt" in ended.out
    assert "\x1b" not in ended.out
    missing = run("inspect", tmp_path / "\x1b]0;owned\x07")
    assert missing.code == 2
    assert "\x1b" not in missing.err
