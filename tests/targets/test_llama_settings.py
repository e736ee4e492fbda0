"""What phiquant sets in llama.cpp's structs, against llama.h field by field, and in llama.cpp."""

import ctypes
import struct

import pytest
from gguf_models import tiny_checkpoint, write_gguf

import llama_h
from phiquant.targets.gguf.context_settings import settings_in
from phiquant.targets.gguf.error_log import ErrorLog
from phiquant.targets.gguf.library import LOADERS, library

EXTENSION = next(llama_h.files(llama_h.FILES[:1]), None)
xllamacpp = LOADERS[0]

needs_xllamacpp = pytest.mark.skipif(EXTENSION is None, reason="needs the package xllamacpp")

DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max_per_seq": 1,
    "n_threads": 4,
    "n_threads_batch": 4,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": -1.0,
    "yarn_beta_fast": -1.0,
    "yarn_beta_slow": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
}
"""llama.cpp's defaults that are not zero, as its source gives them."""
OURS = {
    "n_ctx": 1024,
    "n_batch": 64,
    "n_ubatch": 32,
    "flash_attn_type": 0,
    "type_k": 0,
    "type_v": 0,
}


@pytest.fixture
def other_llama_cpp():
    """A test that binds llama.cpp by itself takes over the log, so the next one binds anew."""
    library.cache_clear()
    yield
    library.cache_clear()


def values_of(parameters):
    fields = llama_h.ContextParams.from_buffer_copy(bytes(parameters))
    return {name: getattr(fields, name) for name, _ in fields._fields_}


@needs_xllamacpp
def test_llama_h_is_what_the_library_was_built_from(other_llama_cpp):
    """Every field of the struct has its default, so none is shifted against the witness."""
    assert values_of(xllamacpp().context_parameters()) == {
        name: DEFAULTS.get(name, None if kind is ctypes.c_void_p else 0)
        for name, kind in llama_h.ContextParams._fields_
    }


@needs_xllamacpp
def test_settings_are_set_and_nothing_else(other_llama_cpp):
    bound = xllamacpp()
    before = values_of(bound.context_parameters())
    assert values_of(bound.context_parameters(**OURS)) == before | OURS
    assert values_of(bound.context_parameters()) == before


@needs_xllamacpp
def test_llama_cpp_does_as_set(tmp_path, monkeypatch, other_llama_cpp):
    """The context itself tells its sizes; its log tells the cache and the kind of attention."""
    told = []
    monkeypatch.setattr(ErrorLog, "take", lambda self, level, text, user=None: told.append(text))
    bound, c = xllamacpp(), llama_h.declared(EXTENSION)
    write_gguf(tiny_checkpoint(tmp_path / "tiny"), tmp_path / "out", precision="fp32")
    (file,) = (tmp_path / "out").glob("*.gguf")
    model = bound.c.llama_model_load_from_file(
        str(file).encode(), bound.c.llama_model_default_params()
    )
    context = bound.c.llama_init_from_model(model, bound.context_parameters(**OURS))
    bound.c.llama_set_n_threads(context, 3, 2)
    assert c.llama_n_ctx(context) == OURS["n_ctx"]
    assert c.llama_n_batch(context) == OURS["n_batch"]
    assert c.llama_n_ubatch(context) == OURS["n_ubatch"]
    assert (c.llama_n_threads(context), c.llama_n_threads_batch(context)) == (3, 2)
    c.llama_free(context)
    c.llama_model_free(model)
    log = b"".join(told).decode()
    assert "K (f32)" in log and "V (f32)" in log
    assert "flash_attn            = disabled" in log


# Four layouts of the struct, of builds 9294, 9713, 10566 and 11549: the words before the four enums
# of -1, and those after type_v. Before them are n_ctx, n_batch and n_ubatch.
LAYOUTS = {
    9294: ((1, 0, 4, 4, 0), (0,) * 4),
    9713: ((1, 0, 0, 4, 4, 0), (0,) * 4),
    10566: ((1, 0, 0, 1, 4, 4, 0), (0,) * 4),
    11549: ((1, 0, 0, 1, 4, 4, 0), (0,) * 6),
}


def defaults(before, after, enums=(-1, -1, -1, -1), floats=(0, 0, -1, -1, -1, -1), cache=(1, 1)):
    """A `llama_context_params` with these fields, and what may lie behind it in memory."""
    data = struct.pack("<3I", 512, 2048, 512) + struct.pack(f"<{len(before)}i", *before)
    data += struct.pack(f"<{len(enums)}i", *enums)
    data += struct.pack(f"<{len(floats)}fIf", *floats, 0, -1.0)
    data += bytes(-len(data) % 8 + 16)
    data += struct.pack(f"<{len(cache) + len(after)}i", *cache, *after)
    return data + b"\xa5" * 512


@pytest.mark.parametrize("build", LAYOUTS)
def test_settings_are_recognised_in_every_layout(build):
    before, after = LAYOUTS[build]
    data = defaults(before, after)
    offsets = settings_in(data)
    assert set(offsets) == set(OURS)
    read = {name: struct.unpack_from("<i", data, at)[0] for name, at in offsets.items()}
    assert read == {name: DEFAULTS[name] for name in OURS}
    assert offsets["flash_attn_type"] == 4 * (3 + len(before) + 3)
    assert offsets["type_v"] == offsets["type_k"] + 4 == data.index(struct.pack("<2i", 1, 1)) + 4


def test_layouts_yet_to_come():
    before, after = LAYOUTS[11549]
    assert settings_in(defaults((*before[:3], 7, 7, *before[3:]), (0, 9, *after)))
    for changed, words in (
        (defaults(before, after, enums=(-1,) * 5), "flash_attn_type"),
        (defaults(before, after, enums=(-1,) * 3), "flash_attn_type"),
        (defaults(before, after, enums=(-1, -1, -1, 0)), "flash_attn_type"),
        (defaults(before, after, floats=(0, 0, 0, -1, -1, -1, -1)), "flash_attn_type"),
        (defaults(before, after, floats=(0, 0, 0, 1, 32, 1)), "flash_attn_type"),
        (defaults((0,) * 64, after), "flash_attn_type"),
        (defaults(before, after, cache=(1, 2)), "type_k"),
        (defaults(before, after, cache=(0, 1, 1)), "type_k"),
        (b"\0\0\0\0" + defaults(before, after), "n_ctx"),
        (bytes(1024), "n_ctx"),
    ):
        with pytest.raises(ValueError, match=words):
            settings_in(changed)
