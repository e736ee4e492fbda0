"""Importance matrices in both of llama.cpp's encodings: round trips, hand-made files, lies."""

import ctypes
import struct
from dataclasses import replace

import gguf
import numpy as np
import pytest
from ggml_reference import library

from phiquant.errors import InputError
from phiquant.phi.config import read_architecture
from phiquant.targets.gguf.imatrix import read_imatrix, write_imatrix
from phiquant.targets.gguf.importance import read_importance
from phiquant.targets.gguf.tensors import tensor_name_of
from phiquant.targets.importance import ImatrixDataset, ImatrixEntry
from tiny_models import tiny_config

TEXT = ImatrixDataset("some text.txt", 24)


def some_entries(count=77):
    random = np.random.default_rng(1)
    return {
        name: ImatrixEntry(random.lognormal(0, 3, columns).astype(np.float32), count)
        for name, columns in [("blk.1.ffn_down.weight", 96), ("blk.0.attn_qkv.weight", 1)]
    }


def whole_model(**changes):
    """Entries for every matrix of the tiny model by llama.cpp's names, and its architecture."""
    architecture = read_architecture(tiny_config(**changes))
    widths = {"attn_qkv": 64, "attn_output": 64, "ffn_up": 64, "ffn_down": 96}
    names = {f"blk.{layer}.{name}.weight": n for layer in range(2) for name, n in widths.items()}
    names["output.weight"] = 64
    random = np.random.default_rng(2)
    entries = {
        name: ImatrixEntry(random.random(n).astype(np.float32), 7) for name, n in names.items()
    }
    return entries, architecture


def i32(*values):
    return struct.pack(f"<{len(values)}i", *values)


def counted(text):
    return i32(len(text)) + text


def f32(*values):
    return np.array(values, "<f4").tobytes()


LEGACY = (
    i32(2)
    + (counted(b"blk.0.attn_qkv.weight") + i32(4, 3) + f32(4, 8, 0.5))
    + (counted(b"output.weight") + i32(0, 2) + f32(1, 7))
)


@pytest.mark.parametrize("end", [b"", i32(4), i32(4) + counted(b"wiki.train.raw")])
def test_a_hand_made_file_of_the_older_encoding(tmp_path, end):
    """With and without what later releases add at the end; sums as they stand where calls are 0."""
    path = tmp_path / "some.imatrix"
    path.write_bytes(LEGACY + end)
    matrices = read_imatrix(path)
    assert list(matrices) == ["blk.0.attn_qkv.weight", "output.weight"]
    assert matrices["blk.0.attn_qkv.weight"].inputs.squares.tolist() == [1, 2, 0.125]
    assert matrices["output.weight"].inputs.squares.tolist() == [1, 7]


def test_the_older_encoding_is_written_byte_for_byte(tmp_path):
    path = tmp_path / "new" / "x.dat"
    entries = {
        "blk.0.ffn_up.weight": ImatrixEntry(
            np.float32([50, 25, 0]), 50
        ),  # three chunks of 24 at most
        "blk.0.attn_qkv.weight": ImatrixEntry(np.float32([48]), 24),
    }
    write_imatrix(path, entries, TEXT)
    expected = i32(2)
    expected += counted(b"blk.0.attn_qkv.weight") + i32(1, 1) + f32(2)
    expected += counted(b"blk.0.ffn_up.weight") + i32(3, 3) + f32(3, 1.5, 0)
    assert path.read_bytes() == expected + i32(3) + counted(b"some text.txt")


@pytest.mark.parametrize("name", ["x.gguf", "x.dat", "x"])
def test_what_is_written_reads_back(tmp_path, name):
    entries = some_entries()
    write_imatrix(tmp_path / name, entries, TEXT)
    matrices = read_imatrix(tmp_path / name)
    assert matrices.keys() == entries.keys()
    for one in entries:
        exact = entries[one].sums / np.float32(77)
        if name == "x.dat":
            assert matrices[one].inputs.squares == pytest.approx(exact, rel=3e-7)
        else:
            assert np.array_equal(matrices[one].inputs.squares, exact)
            assert np.array_equal(matrices[one].sums, entries[one].sums)


def test_means_come_and_go_with_the_newer_encoding(tmp_path):
    entries, architecture = whole_model()
    random = np.random.default_rng(5)
    entries = {
        name: replace(one, plain=np.sqrt(one.sums * one.count) * random.uniform(-1, 1))
        for name, one in entries.items()
    }
    for name in ("x.gguf", "x.dat"):
        write_imatrix(tmp_path / name, entries, TEXT)
    assert all(one.plain is None for one in read_imatrix(tmp_path / "x.dat").values())
    importance = read_importance(tmp_path / "x.gguf", architecture)
    for weight, inputs in importance.inputs.items():
        entry = entries[tensor_name_of(weight)]
        assert np.array_equal(
            inputs.means, entry.plain.astype(np.float32) / np.float32(entry.count)
        )
    name = "blk.1.ffn_up.weight"
    for broken in (np.inf, np.nan, 2 * np.sqrt(entries[name].sums * entries[name].count).max()):
        plain = np.full_like(entries[name].sums, broken)
        write_imatrix(tmp_path / "y", entries | {name: replace(entries[name], plain=plain)}, TEXT)
        with pytest.raises(InputError, match="go with their mean squares for blk"):
            read_importance(tmp_path / "y", architecture)
    short = replace(entries[name], plain=np.ones(3, np.float32))
    write_imatrix(tmp_path / "y", entries | {name: short}, TEXT)
    with pytest.raises(InputError, match=r"has 3 \.in_sum of blk"):
        read_importance(tmp_path / "y", architecture)


def test_the_package_gguf_reads_what_was_written(tmp_path):
    entries = some_entries()
    write_imatrix(tmp_path / "x.gguf", entries, TEXT)
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "imatrix"
    assert fields["imatrix.datasets"] == ["some text.txt"]
    assert (fields["imatrix.chunk_count"], fields["imatrix.chunk_size"]) == (4, 24)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert list(tensors) == [
        f"{name}.{part}" for name in sorted(entries) for part in ("in_sum2", "counts")
    ]
    for name, entry in entries.items():
        assert np.array_equal(tensors[f"{name}.in_sum2"].data, entry.sums)
        assert tensors[f"{name}.counts"].data.tolist() == [77]


class Parameters(ctypes.Structure):
    """ggml's gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p)))


def declared(name, result, *arguments):
    function = getattr(library(), name)
    function.restype, function.argtypes = result, arguments
    return function


def test_llama_cpps_own_reader_of_gguf_finds_what_llama_quantize_asks_for(tmp_path):
    entries = some_entries()
    write_imatrix(tmp_path / "x.gguf", entries, TEXT)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    start = declared("gguf_init_from_file", pointer, text, Parameters)
    key = declared("gguf_find_key", number, pointer, text)
    u32 = declared("gguf_get_val_u32", ctypes.c_uint32, pointer, number)
    kind = declared("gguf_get_arr_type", ctypes.c_int, pointer, number)
    word = declared("gguf_get_arr_str", text, pointer, number, ctypes.c_size_t)
    tensor = declared("ggml_get_tensor", pointer, pointer, text)
    elements = declared("ggml_nelements", number, pointer)
    values = declared("ggml_get_data_f32", ctypes.POINTER(ctypes.c_float), pointer)
    context = pointer()
    data = start(str(tmp_path / "x.gguf").encode(), Parameters(False, ctypes.pointer(context)))
    assert data
    assert u32(data, key(data, b"imatrix.chunk_count")) == 4
    assert u32(data, key(data, b"imatrix.chunk_size")) == 24
    datasets = key(data, b"imatrix.datasets")
    assert kind(data, datasets) == 8  # a string
    assert word(data, datasets, 0) == b"some text.txt"
    for name, entry in entries.items():
        sums = tensor(context, f"{name}.in_sum2".encode())
        assert values(sums)[: elements(sums)] == entry.sums.tolist()
        assert values(tensor(context, f"{name}.counts".encode()))[:1] == [77]
    declared("gguf_free", None, pointer)(data)
    declared("ggml_free", None, pointer)(context)


def gguf_file(path, tensors, dtype=np.float32, kind="imatrix"):
    """As another tool could write it: `tensors` by name, no metadata but the type."""
    writer = gguf.GGUFWriter(path, "phi3")
    writer.add_type(kind)
    for name, values in tensors.items():
        writer.add_tensor(name, np.array(values, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_gguf_with_sums_of_plain_inputs_and_two_dimensions(tmp_path):
    """The layout of newer llama-imatrix releases."""
    path = gguf_file(
        tmp_path / "x",
        {
            "output.weight.in_sum2": [[1, 2, 4]],
            "output.weight.counts": [[2]],
            "output.weight.in_sum": [[0, -1, 2]],
        },
    )
    assert read_imatrix(path)["output.weight"].inputs.squares.tolist() == [0.5, 1, 2]


BROKEN_LEGACY = {
    "empty": b"",
    "three bytes": b"\1\0\0",
    "no entries": i32(0),
    "a negative number of entries": i32(-5),
    "more entries than bytes": i32(2**31 - 1) + LEGACY[4:],
    "more entries than there are": i32(3) + LEGACY[4:],
    "fewer entries than there are": i32(1) + LEGACY[4:],
    "a name longer than the file": i32(1) + i32(2**31 - 1) + b"blk" * 9,
    "a name of negative length": i32(1) + i32(-1) + b"blk" * 9,
    "more columns than bytes": i32(1) + counted(b"output.weight") + i32(1, 2**31 - 1) + f32(1, 2),
    "no columns": i32(1) + counted(b"output.weight") + i32(1, 0) + f32(1, 2),
    "negative calls": i32(1) + counted(b"output.weight") + i32(-1, 2) + f32(1, 2),
    "the same name twice": i32(2) + 2 * (counted(b"a") + i32(1, 1) + f32(3)),
    "cut off": LEGACY[:-1],
    "a cut-off end": LEGACY + i32(4, 20) + b"wiki",
    "bytes too many": LEGACY + i32(4) + counted(b"wiki") + b"more",
    "another kind of file": b"PK\3\4" * 100,
}


@pytest.mark.parametrize("case", BROKEN_LEGACY)
def test_a_broken_file_of_the_older_encoding_is_refused(tmp_path, case):
    (tmp_path / "x.dat").write_bytes(BROKEN_LEGACY[case])
    with pytest.raises(InputError, match=r"x\.dat"):
        read_imatrix(tmp_path / "x.dat")


BROKEN_GGUF = {
    "no tensors": {},
    "a model": {"output.weight": [1]},
    "sums alone": {"a.in_sum2": [1]},
    "counts alone": {"a.counts": [1]},
    "several counts": {"a.in_sum2": [[1, 2], [3, 4]], "a.counts": [[1], [2]]},
    "a count that is no number": {"a.in_sum2": [1], "a.counts": [np.nan]},
    "a negative count": {"a.in_sum2": [1], "a.counts": [-3]},
    "an infinite count": {"a.in_sum2": [1], "a.counts": [np.inf]},
}


@pytest.mark.parametrize("case", BROKEN_GGUF)
def test_broken_gguf_is_refused(tmp_path, case):
    path = gguf_file(tmp_path / "x.gguf", BROKEN_GGUF[case])
    with pytest.raises(InputError, match=r"x\.gguf"):
        read_imatrix(path)


def test_gguf_that_is_cut_off_or_of_another_type_is_refused(tmp_path):
    tensors = {"output.weight.in_sum2": [1, 2], "output.weight.counts": [1]}
    whole = gguf_file(tmp_path / "whole", tensors).read_bytes()
    for size in (4, 30, len(whole) - 40):
        (tmp_path / "x.gguf").write_bytes(whole[:size])
        with pytest.raises(InputError):
            read_imatrix(tmp_path / "x.gguf")
    gguf_file(tmp_path / "half", tensors, np.float16)
    with pytest.raises(InputError, match="F32"):
        read_imatrix(tmp_path / "half")


def test_a_path_that_cannot_be_read_is_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError, match=r"cannot read|found a directory"):
            read_imatrix(path)


@pytest.mark.parametrize("name", ["x.gguf", "x.dat"])
def test_a_models_matrices_get_their_checkpoint_names(tmp_path, name):
    entries, architecture = whole_model()
    write_imatrix(tmp_path / name, entries, ImatrixDataset("text", 7))
    importance = read_importance(tmp_path / name, architecture)
    assert importance.absent == ()
    matrices = {w.name: w.shape for w in architecture.weights() if len(w.shape) == 2}
    del matrices["model.embed_tokens.weight"]
    assert {one: inputs.squares.shape for one, inputs in importance.inputs.items()} == {
        one: shape[1:] for one, shape in matrices.items()
    }
    inputs = importance.inputs["model.layers.1.mlp.gate_up_proj.weight"]
    assert np.array_equal(inputs.squares, entries["blk.1.ffn_up.weight"].inputs.squares)
    assert inputs.means is None
    assert importance.note == f"Rounding errors are weighed by the importance matrix {name}."


def test_matrices_that_the_file_has_nothing_on_are_told(tmp_path):
    entries, architecture = whole_model()
    del entries["output.weight"], entries["blk.0.ffn_up.weight"]
    nothing = ImatrixEntry(np.full(96, np.nan, np.float32), 0)
    write_imatrix(tmp_path / "x", entries | {"blk.1.ffn_down.weight": nothing}, TEXT)
    importance = read_importance(tmp_path / "x", architecture)
    names = ("blk.0.ffn_up.weight", "blk.1.ffn_down.weight", "output.weight")
    assert importance.absent == names
    assert ", ".join(names) in importance.note
    assert len(importance.inputs) == 9 - 3


@pytest.mark.parametrize("name", ["token_embd.weight", "output.weight"])
def test_a_tied_head_goes_by_either_name(tmp_path, name):
    entries, architecture = whole_model(tie_word_embeddings=True)
    head = entries.pop("output.weight")
    write_imatrix(tmp_path / "x", entries | {name: head}, TEXT)
    importance = read_importance(tmp_path / "x", architecture)
    assert np.array_equal(
        importance.inputs["model.embed_tokens.weight"].squares, head.inputs.squares
    )
    assert not importance.absent


def test_an_embedding_that_is_looked_up_only_is_not_weighed(tmp_path):
    entries, architecture = whole_model()
    odd = ImatrixEntry(np.ones(5, np.float32), 1)
    write_imatrix(tmp_path / "x", entries | {"token_embd.weight": odd}, TEXT)
    importance = read_importance(tmp_path / "x", architecture)
    assert "model.embed_tokens.weight" not in importance.inputs


@pytest.mark.parametrize(
    "change, words",
    [
        ({"blk.1.ffn_down.weight": ImatrixEntry(np.ones(95, np.float32), 1)}, "96 columns"),
        (
            {"blk.2.ffn_down.weight": ImatrixEntry(np.ones(96, np.float32), 1)},
            "blk.2.ffn_down.weight",
        ),
        ({"blk.0.attn_q.weight": ImatrixEntry(np.ones(64, np.float32), 1)}, "blk.0.attn_q.weight"),
        ({"output.weight": ImatrixEntry(np.full(64, np.nan, np.float32), 1)}, "nan"),
        ({"output.weight": ImatrixEntry(np.full(64, np.inf, np.float32), 1)}, "inf"),
        ({"output.weight": ImatrixEntry(np.float32([-1] + 63 * [1]), 1)}, "-1"),
    ],
)
def test_a_file_for_another_model_or_with_impossible_values_is_refused(tmp_path, change, words):
    entries, architecture = whole_model()
    write_imatrix(tmp_path / "x.gguf", entries | change, TEXT)
    with pytest.raises(InputError, match=words):
        read_importance(tmp_path / "x.gguf", architecture)


def test_a_file_that_says_nothing_is_refused(tmp_path):
    entries, architecture = whole_model()
    unseen = {name: ImatrixEntry(entry.sums, 0) for name, entry in entries.items()}
    write_imatrix(tmp_path / "x.gguf", unseen, TEXT)
    with pytest.raises(InputError, match="nothing on any matrix"):
        read_importance(tmp_path / "x.gguf", architecture)
