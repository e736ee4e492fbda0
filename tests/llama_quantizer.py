"""llama.cpp's own quantizer, `llama_model_quantize`, from the package `cyllama`.

The library that phiquant runs artifacts in leaves the quantizer out.
"""

import ctypes
import struct
from typing import ClassVar

import numpy as np
import pytest

FLOATS, POINTER = ctypes.POINTER(ctypes.c_float), ctypes.c_void_p


class ImatrixData(ctypes.Structure):
    """llama.h's `llama_model_imatrix_data`."""

    _fields_: ClassVar = [("name", ctypes.c_char_p), ("data", FLOATS), ("size", ctypes.c_size_t)]


class QuantizeParams(ctypes.Structure):
    """llama.h's `llama_model_quantize_params`, as far as its pointers."""

    _fields_: ClassVar = [
        ("numbers", ctypes.c_int32 * 4),
        ("switches", ctypes.c_bool * 6),
        ("imatrix", ctypes.POINTER(ImatrixData)),
        ("kv_overrides", POINTER),
        ("tt_overrides", POINTER),
        ("prune_layers", POINTER),
    ]


def llama_quantize(source, destination, file_type, importance=None):
    """`source` with the types that llama-quantize gives a file of `file_type`.

    With `importance`, arrays by the names of tensors, every matrix becomes `file_type`.
    """
    llama = pytest.importorskip("cyllama.llama.llama_cpp", reason="no quantizer of llama.cpp")
    parameters = llama.LlamaModelQuantizeParams()
    parameters.ftype, parameters.nthread = file_type, 1
    if importance is not None:
        parameters.output_tensor_type = parameters.token_embedding_type = file_type
        held = [np.ascontiguousarray(means, np.float32) for means in importance.values()]
        rows = (ImatrixData * (len(held) + 1))()  # an entry without a name ends them
        for row, name, means in zip(rows, importance, held, strict=False):
            row.name, row.size = name.encode(), means.size
            row.data = ctypes.cast(means.ctypes.data, FLOATS)
        struct_in(parameters).imatrix = rows
    llama.model_quantize(str(source), str(destination), parameters)


def struct_in(parameters):
    """The struct in the memory of cyllama's object, which lets no matrix in by another way."""
    size = type(parameters).__basicsize__
    numbers = (
        parameters.nthread,
        parameters.ftype,
        parameters.output_tensor_type,
        parameters.token_embedding_type,
    )
    memory = ctypes.string_at(id(parameters), size)
    assert memory.count(struct.pack("<4i", *numbers)) == 1
    at = memory.index(struct.pack("<4i", *numbers))
    assert at % 8 == 0 and size - at >= ctypes.sizeof(QuantizeParams)
    candidate = QuantizeParams.from_address(id(parameters) + at)
    assert list(candidate.switches) == [False, True, False, False, False, False]
    assert not (
        candidate.imatrix
        or candidate.kv_overrides
        or candidate.tt_overrides
        or candidate.prune_layers
    )
    return candidate
