"""ggml's own quantizers and dequantizers, from whichever package brings them."""

import ctypes
from functools import cache

import numpy as np
import pytest

from llama_h import files

TYPES = {
    "Q4_0": 2,
    "Q4_1": 3,
    "Q5_0": 6,
    "Q5_1": 7,
    "Q8_0": 8,
    "Q2_K": 10,
    "Q3_K": 11,
    "Q4_K": 12,
    "Q5_K": 13,
    "Q6_K": 14,
}


BASES = (
    ("xllamacpp", "xllamacpp*.so"),
    ("llama_cpp_py_sync", "*ggml-base*"),
    ("llama_cpp", "lib/*ggml-base*"),
)
"""The libraries that hold ggml's own functions; xllamacpp's only one does."""


@cache
def _load():
    for path in files(BASES):
        try:
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    return None


def library():
    loaded = _load()
    if loaded is None:
        pytest.skip("no ggml that loads here")
    return loaded


def quantize(name, weights, importance=None):
    """ggml_quantize_chunk on one thread: bytes (rows, bytes a row)."""
    call = library().ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    long = ctypes.c_int64
    pointer = ctypes.c_void_p
    call.argtypes = [ctypes.c_int, pointer, pointer, long, long, long, pointer]
    weights = np.ascontiguousarray(weights, np.float32)
    rows, columns = weights.shape
    data = np.zeros(8 * weights.size, np.uint8)
    matrix = None if importance is None else np.ascontiguousarray(importance, np.float32)
    written = call(
        TYPES[name],
        weights.ctypes.data,
        data.ctypes.data,
        0,
        rows,
        columns,
        None if matrix is None else matrix.ctypes.data,
    )
    return data[:written].reshape(rows, -1)


def dequantize(name, data, columns):
    """dequantize_row_*: float32 (rows, columns)."""
    call = getattr(library(), "dequantize_row_" + name.replace("Q", "q"))
    call.restype = None
    call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    data = np.ascontiguousarray(data)
    weights = np.empty((len(data), columns), np.float32)
    call(data.ctypes.data, weights.ctypes.data, weights.size)
    return weights
