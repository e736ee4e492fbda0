"""llama.h of the build that the tests run in (constraints.txt), struct by struct.

phiquant itself knows no struct of llama.h but recognises the few fields that it sets. Tests need
more of them, and an independent witness: here each field is declared, as `llama-cpp-python` does.
"""

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from phiquant.targets.gguf.library import library
from phiquant.targets.gguf.llama_cpp_python import LlamaCppPython
from phiquant.targets.gguf.shared_library import FUNCTIONS, LogCallback

INT, WORD, SIZE = ctypes.c_int32, ctypes.c_uint32, ctypes.c_size_t
FLOAT, BOOL, POINTER, TEXT = ctypes.c_float, ctypes.c_bool, ctypes.c_void_p, ctypes.c_char_p


class ModelParams(ctypes.Structure):
    _fields_: ClassVar = [
        ("devices", POINTER),
        ("tensor_buft_overrides", POINTER),
        ("n_gpu_layers", INT),
        ("split_mode", INT),
        ("load_mode", INT),
        ("lazy_mode", INT),
        ("main_gpu", INT),
        ("tensor_split", POINTER),
        ("progress_callback", POINTER),
        ("progress_callback_user_data", POINTER),
        ("kv_overrides", POINTER),
        ("vocab_only", BOOL),
        ("check_tensors", BOOL),
        ("use_extra_bufts", BOOL),
        ("no_host", BOOL),
        ("no_alloc", BOOL),
        ("load_mtp", BOOL),
    ]


class ContextParams(ctypes.Structure):
    _fields_: ClassVar = [
        ("n_ctx", WORD),
        ("n_batch", WORD),
        ("n_ubatch", WORD),
        ("n_seq_max", WORD),
        ("n_rs_seq", WORD),
        ("n_outputs_max", WORD),
        ("n_outputs_max_per_seq", WORD),
        ("n_threads", INT),
        ("n_threads_batch", INT),
        ("ctx_type", INT),
        ("rope_scaling_type", INT),
        ("pooling_type", INT),
        ("attention_type", INT),
        ("flash_attn_type", INT),
        ("rope_freq_base", FLOAT),
        ("rope_freq_scale", FLOAT),
        ("yarn_ext_factor", FLOAT),
        ("yarn_attn_factor", FLOAT),
        ("yarn_beta_fast", FLOAT),
        ("yarn_beta_slow", FLOAT),
        ("yarn_orig_ctx", WORD),
        ("defrag_thold", FLOAT),
        ("cb_eval", POINTER),
        ("cb_eval_user_data", POINTER),
        ("type_k", INT),
        ("type_v", INT),
        ("moe_cache_size", SIZE),
        ("abort_callback", POINTER),
        ("abort_callback_data", POINTER),
        ("embeddings", BOOL),
        ("offload_kqv", BOOL),
        ("no_perf", BOOL),
        ("op_offload", BOOL),
        ("swa_full", BOOL),
        ("kv_unified", BOOL),
        ("samplers", POINTER),
        ("n_samplers", SIZE),
        ("ctx_other", POINTER),
    ]


class Batch(ctypes.Structure):
    _fields_: ClassVar = [
        ("n_tokens", INT),
        ("token", ctypes.POINTER(INT)),
        ("embd", ctypes.POINTER(FLOAT)),
        ("pos", ctypes.POINTER(INT)),
        ("n_seq_id", ctypes.POINTER(INT)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(INT))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


STRUCTS = {
    "llama_model_default_params": (ModelParams,),
    "llama_model_load_from_file": (POINTER, TEXT, ModelParams),
    "llama_context_default_params": (ContextParams,),
    "llama_init_from_model": (POINTER, POINTER, ContextParams),
    "llama_batch_init": (Batch, INT, INT, INT),
    "llama_batch_free": (None, Batch),
    "llama_decode": (INT, POINTER, Batch),
}
MORE = {
    "llama_n_ctx": (WORD, POINTER),
    "llama_n_batch": (WORD, POINTER),
    "llama_n_ubatch": (WORD, POINTER),
    "llama_n_threads": (INT, POINTER),
    "llama_n_threads_batch": (INT, POINTER),
    **{
        f"llama_vocab_{name}": (INT, POINTER)
        for name in ("bos", "eos", "eot", "pad", "get_add_bos", "get_add_eos")
    },
}
"""What only tests call."""

FILES = (
    ("xllamacpp", "xllamacpp*.so"),
    ("llama_cpp_py_sync", "*llama.dll"),
    ("llama_cpp", "lib/*llama.*"),
)


def files(patterns=FILES):
    """The shared libraries of llama.cpp that are installed."""
    for package, pattern in patterns:
        spec = find_spec(package)
        if spec is not None and spec.origin:
            yield from sorted(Path(spec.origin).parent.glob(pattern))


def declared(file):
    """llama.h on a shared library, as a module like `llama_cpp.llama_cpp`."""
    loaded, module = ctypes.CDLL(str(file)), ModuleType("llama_cpp.llama_cpp")
    for name, (result, *arguments) in (FUNCTIONS | MORE | STRUCTS).items():
        function = loaded[name]
        function.restype, function.argtypes = result, arguments
        setattr(module, name, function)
    module.llama_log_callback = LogCallback
    return module


@cache
def api():
    """llama.h of the installed llama.cpp, whose log is silent."""
    loaded = library()
    return loaded.c if isinstance(loaded, LlamaCppPython) else declared(next(files()))
