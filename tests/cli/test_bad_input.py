"""Bad requests and bad input: one clear sentence, the right exit code, nothing left behind.

The destination's parent is watched as a whole, hidden files included.
"""

import json
import os
import shutil
import struct
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from command_line import assert_refused, call, files_in, run, tiny_model
from tiny_models import tiny_config, tiny_weights, write_safetensors, write_tiny_checkpoint
from tiny_tokenizer import write_tiny_tokenizer


@pytest.fixture
def copy(model, tmp_path):
    """A checkpoint that a test may damage."""
    return shutil.copytree(model, tmp_path / "copy")


@pytest.fixture
def refused(tmp_path):
    """Quantize for both targets into a watched place and expect a refusal that says `words`."""
    place = tmp_path / "place"
    place.mkdir()

    def check(model, *words, options=("--to", "gguf,mlx"), code=2, by=call):
        ended = by("quantize", model, "-o", place / "new" / "out", "-q", *options)
        assert_refused(ended, code, *words)
        assert files_in(place) == []

    return check


def change_config(directory, remove=(), **changes):
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: config[key] for key in config if key not in remove}))


def test_an_empty_directory(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "config.json", by=run)


def test_no_directory_at_all(refused, tmp_path, copy):
    refused(tmp_path / "absent" / "model" / "x", "no directory")
    refused(copy / "config.json", "the file")
    refused("~no-such-person-here/model", "no home directory")


def test_what_is_neither_a_directory_nor_a_models_id(refused, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("phi", "a/b/c", "a/b..c", "microsoft/not-in-the-cache"):
        refused(name, name)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are text elsewhere")
def test_a_directory_whose_name_is_no_text(model, tmp_path):
    directory = shutil.copytree(model, os.fsdecode(os.fsencode(tmp_path / "name") + b"\xff"))
    ended = call("quantize", directory, "--to", "gguf,mlx", "-o", tmp_path / "out", "-q")
    assert ended.code == 0, ended.err
    assert "name?" in (tmp_path / "out" / "mlx" / "README.md").read_text()


@pytest.mark.parametrize(
    "field",
    ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
     "vocab_size", "rms_norm_eps", "max_position_embeddings", "rope_theta"],
)  # fmt: skip
def test_a_config_without_a_needed_field(refused, copy, field):
    change_config(copy, remove=[field])
    refused(copy, field)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}, "Qwen2ForCausalLM"),
        ({"architectures": [], "model_type": "gpt2"}, "gpt2"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings"),
        ({"rms_norm_eps": 10**60}, "rms_norm_eps"),
        ({"rms_norm_eps": 1e-60}, "rms_norm_eps"),
        ({"rope_theta": 1e300}, "rope_theta"),
        ({"rope_theta": float("inf")}, "Infinity is no number"),
        ({"partial_rotary_factor": 1e-9}, "rotary"),
        ({"hidden_size": "x" * 10_000}, "hidden_size"),
        ({"rope_scaling": [1]}, "rope_scaling"),
    ],
)
def test_a_config_of_another_model_or_of_none(refused, copy, changes, word):
    change_config(copy, **changes)
    refused(copy, word)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "[" * 100_000, '{"hidden_size": ' + "9" * 5000 + "}", "\ufeff{}"]
)
def test_a_config_that_is_no_json_object(refused, copy, content):
    (copy / "config.json").write_text(content, encoding="utf-8")
    refused(copy, "config.json")


def header_of(data):
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header, rest):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def lies(data):
    """Damaged versions of a safetensors file."""
    header, rest = header_of(data)
    yield "empty", b""
    yield "half a length", data[:5]
    yield "header cut", data[:100]
    yield "data cut", data[:-1]
    yield "data added", data + b"\0"
    yield "length beyond the file", struct.pack("<Q", 1 << 60) + data[8:]
    yield "length of all bits", b"\xff" * 8 + data[8:]
    yield "not JSON", data[:8] + b"x" + data[9:]
    name = "model.layers.0.self_attn.o_proj.weight"
    for what, change in {
        "offsets swapped": {"data_offsets": header[name]["data_offsets"][::-1]},
        "offsets beyond": {"data_offsets": [0, 1 << 50]},
        "negative": {"data_offsets": [-2, 0]},
        "shape too large": {"shape": [1 << 40, 1 << 40]},
        "shape zero": {"shape": [0, 128]},
        "another type": {"dtype": "F64"},
        "no type": {"dtype": "EVIL"},
        "overlap": {"data_offsets": header["model.norm.weight"]["data_offsets"]},
    }.items():
        yield what, with_header(header | {name: header[name] | change}, rest)
    yield "deep", struct.pack("<Q", 200_000) + b"[" * 200_000 + rest


def test_a_truncated_or_lying_safetensors_header(refused, copy):
    path = copy / "model.safetensors"
    sound = path.read_bytes()
    seen = 0
    for _, data in lies(sound):
        path.write_bytes(data)
        refused(copy, "model.safetensors")
        seen += 1
    assert seen == 17
    path.write_bytes(sound)
    assert call("inspect", copy).code == 0


def test_tensors_that_the_config_does_not_promise(refused, tmp_path):
    weights = tiny_weights(tiny_config())
    gone = dict(weights)
    del gone["model.layers.1.mlp.down_proj.weight"]
    bent = weights | {"model.norm.weight": np.ones(63, np.float32)}
    more = weights | {"model.layers.7.bias": np.ones(3, np.float32)}
    named = weights | {"../../evil/[red]\x1b[2J": np.ones(3, np.float32)}
    for number, (broken, word) in enumerate(
        [(gone, "1.mlp.down_proj"), (bent, "[63]"), (more, "7.bias"), (named, "evil")]
    ):
        directory = write_tiny_checkpoint(tmp_path / str(number), weights=broken)
        write_tiny_tokenizer(directory)
        refused(directory, word, "config.json")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_value_that_is_not_finite(refused, tmp_path, value, dtype):
    weights = tiny_weights(tiny_config())
    name = "model.layers.1.self_attn.qkv_proj.weight"
    weights[name].flat[-1] = value
    directory = tmp_path / "model"
    write_tiny_tokenizer(directory)
    write_tiny_checkpoint(directory, weights=weights)
    if dtype == "BF16":  # the rounding of the helper would change a NaN
        stored = bytearray((directory / "model.safetensors").read_bytes())
        header, rest = header_of(bytes(stored))
        end = len(stored) - len(rest) + header[name]["data_offsets"][1]
        stored[end - 2 : end] = np.float32(value).tobytes()[2:]
        (directory / "model.safetensors").write_bytes(stored)
    else:
        write_safetensors(directory / "model.safetensors", weights, dtype)
    refused(directory, name, "NaN or infinite")


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_a_destination_that_exists(model, tmp_path, kind):
    output = tmp_path / "out"
    if kind == "link":
        output.symlink_to("nowhere")
    elif kind == "file":
        output.touch()
    else:
        output.mkdir()
    ended = call("quantize", model, "-o", output, "-q")
    assert_refused(ended, 2, "exists already", str(output))
    assert files_in(tmp_path) == ["out"]


def test_a_destination_below_a_file_or_with_an_endless_name(model, tmp_path):
    (tmp_path / "file").touch()
    assert_refused(call("quantize", model, "-o", tmp_path / "file" / "out"), 2, "cannot write")
    endless = call("quantize", model, "-o", tmp_path / "new" / ("x" * 300), "-q")
    assert_refused(endless, 2, "too long")
    assert files_in(tmp_path) == ["file"]


def test_the_longest_name_of_a_destination_works(model, tmp_path):
    ended = call("quantize", model, "-o", tmp_path / ("x" * 255), "-q")
    assert ended.code == 0, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--to", "onnxx"), ("gguf", "onnxx")),
        (("--to", ""), ("gguf", "none")),
        (("--to", "gguf,gguf"), ("different",)),
        (("--precision", "int3"), ("int4", "int3")),
        (("--type", "Q9_X"), ("Q4_K_M", "Q9_X")),
        (("--to", "mlx", "--type", "Q4_K_M"), ("4bit-g64", "Q4_K_M")),
        (("--type", "mlx=4bit-g64"), ("--to",)),
        (("--to", "gguf,mlx", "--type", "Q4_0"), ("gguf=Q4_0",)),
        (("--type", "Q4_0", "--type", "Q8_0"), ("Q4_0", "Q8_0")),
        (("--context", "0"), ("--context",)),
        (("--to", "mlx", "--context", "1000000"), ("256",)),
    ],
)
def test_an_unknown_target_precision_or_type(refused, model, options, words):
    refused(model, *words, options=options)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b", "", ".."])
def test_an_index_that_leads_out_of_its_directory(refused, tmp_path, name):
    directory = tiny_model(tmp_path / "sharded", shards=2)
    index = directory / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(document))
    shutil.copy(directory / "model-00002-of-00002.safetensors", tmp_path / "outside.safetensors")
    refused(directory, "model.safetensors.index.json")


def test_shards_that_disagree_with_their_index(refused, tmp_path):
    directory = tiny_model(tmp_path / "sharded", shards=2)
    last = directory / "model-00002-of-00002.safetensors"
    shutil.copy(last, tmp_path / "kept")
    last.unlink()
    refused(directory, last.name)
    shutil.copy(directory / "model-00001-of-00002.safetensors", last)
    refused(directory, "is in both")
    shutil.copy(tmp_path / "kept", last)
    index = directory / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(document))
    refused(directory, "model.norm.weight")


def test_pickled_weights(refused, copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, "pickled", "safetensors")


def test_a_directory_or_a_pipe_where_a_file_should_be(refused, copy):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors").mkdir()
    refused(copy, "model.safetensors")
    (copy / "model.safetensors").rmdir()
    os.mkfifo(copy / "config.pipe")
    (copy / "config.json").unlink()
    (copy / "config.json").symlink_to("config.pipe")
    refused(copy, "config.json")


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"added_tokens_decoder": 1}', "[" * 100_000])
def test_a_tokenizer_that_is_none(refused, copy, file, content):
    (copy / file).write_text(content)
    refused(copy, "tokenizer")


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("tokenizer_config.json", "chat_template", [{"name": "default"}]),
        ("tokenizer_config.json", "chat_template", 7),
        ("tokenizer_config.json", "pad_token", ["<|endoftext|>"]),
        ("tokenizer_config.json", "added_tokens_decoder", []),
        ("special_tokens_map.json", "eos_token", {"lstrip": False}),
        ("generation_config.json", "eos_token_id", "<|end|>"),
        ("generation_config.json", "temperature", "hot"),
        ("tokenizer.json", "added_tokens", {"<|user|>": 5}),
        ("tokenizer.json", "decoder", {"type": "Unheard"}),
        ("added_tokens.json", "<|extra|>", 10**30),
        ("added_tokens.json", "<|extra|>", 10**9),
    ],
)
def test_a_field_of_the_tokenizer_of_a_wrong_kind(refused, copy, file, field, value):
    path = copy / file
    document = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(document | {field: value}), encoding="utf-8")
    refused(copy, "1000000000" if value == 10**9 else file)


def test_no_tokenizer(refused, copy):
    (copy / "tokenizer.json").unlink()
    refused(copy, "tokenizer")


@contextmanager
def not_root():
    """Act as a user who may not read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_may_not_be_read(made, model, file):
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to other users
        directory = shutil.copytree(model, Path(place) / "model")
        (directory / file).chmod(0)
        (Path(place) / "open").mkdir()
        for path in (Path(place), Path(place) / "open"):
            path.chmod(0o777)
        with not_root():
            ended = call("quantize", directory, "-o", Path(place) / "open" / "out", "-q")
        assert_refused(ended, 2, file, "ermission denied")
        assert files_in(Path(place) / "open") == []


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
def test_a_parent_that_may_not_be_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_refused(call("quantize", model, "-o", tmp_path / "out", "-q"), 2, "cannot write into")
    assert files_in(tmp_path) == []
