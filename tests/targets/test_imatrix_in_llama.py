"""Importance matrices of ours in llama.cpp's own quantizer."""

import gguf
import numpy as np
import pytest
from ggml_reference import quantize as ggml_quantize

from command_line import tiny_model
from llama_quantizer import llama_quantize
from phiquant.calibration.calibration_text import CalibrationText
from phiquant.job.making import quantize
from phiquant.phi.checkpoint import Checkpoint
from phiquant.recipe import ImatrixFiles, Recipe
from phiquant.targets.gguf.imatrix import read_imatrix
from phiquant.targets.gguf.tensors import tensor_name_of

Q4_0 = 2
"""The number of the type of a tensor, and of the file, in ggml.h and llama.h."""


@pytest.mark.parametrize("tied", [False, True])
def test_llama_cpp_quantizes_with_our_matrix(tmp_path, tied):
    """Every matrix is what ggml makes of its weights and our means of them, found by name."""
    model = tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    text, files = CalibrationText(sequences=4, length=32), ImatrixFiles(write=tmp_path / "x.gguf")
    quantize(model, [Recipe("gguf", "fp32")], tmp_path / "f32", text=text, imatrix=files)
    entries = read_imatrix(tmp_path / "x.gguf")
    matrix = {name: entry.inputs.squares for name, entry in entries.items()}
    (source,) = (tmp_path / "f32").glob("*.gguf")
    llama_quantize(source, tmp_path / "q4.gguf", Q4_0, matrix)
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
