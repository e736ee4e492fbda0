"""Importance matrices of ours in llama.cpp's own quantizer."""

import ctypes

import gguf
import numpy as np
import pytest
from ggml_reference import quantize as ggml_quantize

from command_line import tiny_model
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.job.making import quantize
from phiquant.phi.checkpoint import Checkpoint
from phiquant.recipe import ImatrixFiles, Recipe
from phiquant.targets.gguf.imatrix import read_imatrix
from phiquant.targets.gguf.library import CffiLibrary, library
from phiquant.targets.gguf.tensors import tensor_name_of

Q4_0 = 2
"""The number of the type of a tensor, and of the file, in ggml.h and llama.h."""


def in_llama_cpp(source, output, matrix):
    """`llama_model_quantize` to Q4_0 with means by tensor name, as llama-quantize calls it."""
    api, held = library().c, [np.ascontiguousarray(means) for means in matrix.values()]
    names = [name.encode() for name in matrix]
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread = Q4_0, 1
    parameters.output_tensor_type = parameters.token_embedding_type = Q4_0
    if isinstance(library(), CffiLibrary):
        ffi = library()._ffi
        words = [ffi.new("char[]", name) for name in names]
        rows = ffi.new("struct llama_model_imatrix_data[]", len(names) + 1)  # a null name ends it
        for row, word, means in zip(rows, words, held, strict=False):
            row.name, row.data, row.size = word, ffi.cast("float *", means.ctypes.data), means.size
        parameters.imatrix = rows
        return api.llama_model_quantize(
            str(source).encode(),
            str(output).encode(),
            ffi.new("llama_model_quantize_params *", parameters),
        )
    rows = (api.llama_model_imatrix_data * (len(names) + 1))()
    for row, name, means in zip(rows, names, held, strict=False):
        row.name, row.size = name, means.size
        row.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    parameters.imatrix = rows
    return api.llama_model_quantize(
        str(source).encode(), str(output).encode(), ctypes.byref(parameters)
    )


@pytest.mark.parametrize("tied", [False, True])
def test_llama_cpp_quantizes_with_our_matrix(tmp_path, tied):
    """Every matrix is what ggml makes of its weights and our means of them, found by name."""
    model = tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    text, files = CalibrationText(sequences=4, length=32), ImatrixFiles(write=tmp_path / "x.gguf")
    quantize(model, [Recipe("gguf", "fp32")], tmp_path / "f32", text=text, imatrix=files)
    entries = read_imatrix(tmp_path / "x.gguf")
    matrix = {name: entry.inputs.squares for name, entry in entries.items()}
    (source,) = (tmp_path / "f32").glob("*.gguf")
    assert in_llama_cpp(source, tmp_path / "q4.gguf", matrix) == 0
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "q4.gguf").tensors}
    checkpoint, weighed = Checkpoint.open(model), 0
    for weight in checkpoint.architecture.weights():
        name = tensor_name_of(weight.name)
        if len(weight.shape) == 1:
            continue
        assert stored[name].tensor_type.name == "Q4_0"
        values = checkpoint.weight(weight.name)
        assert np.array_equal(stored[name].data, ggml_quantize("Q4_0", values, matrix.get(name)))
        if name in matrix:
            weighed += 1
            assert not np.array_equal(stored[name].data, ggml_quantize("Q4_0", values))
    assert weighed == len(matrix) == 9
