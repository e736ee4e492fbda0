"""Artifacts that are cut short while they are read: an error. A mapping would end the process."""

import os

import numpy as np
import pytest

from command_line import tiny_model
from phiquant.errors import ArtifactError, InputError
from phiquant.job.making import quantize
from phiquant.recipe import Recipe
from phiquant.targets.gguf.imatrix import ImatrixEntry, read_imatrix
from phiquant.targets.table import MODULES, target

DOWN = "model.layers.1.mlp.down_proj.weight"
FORMS = [(name, (), precision) for name in MODULES for precision in ("int4", "fp16")]
FORMS += [("onnx", (("qdq", "true"),), precision) for precision in ("int4", "int8")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.mark.parametrize("name, options, precision", FORMS)
def test_rows_are_those_of_the_whole_and_none_once_it_is_cut_short(
    checkpoint, tmp_path, name, options, precision
):
    (made,) = quantize(checkpoint, [Recipe(name, precision, options=options)], tmp_path / "out")
    artifact = target(name).open(made.path)
    for weight in artifact.architecture.weights():
        whole = artifact.weight(weight.name)
        if whole.ndim == 2:
            for first, last in ((0, 3), (1, 4), (5, None), (len(whole) - 1, None), (2, 2)):
                rows = artifact.weight(weight.name, first, last)
                np.testing.assert_array_equal(rows, whole[first:last])
    files = [path for path in [made.path, *made.path.glob("*")] if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, 1000)
    with pytest.raises(ArtifactError, match=r"ends at byte 1,000, expected [\d,]+: it was shorten"):
        artifact.weight(DOWN)


def test_a_matrix_of_importances_cut_short_between_two_reads(tmp_path, monkeypatch):
    path = tmp_path / "matrix.dat"
    sums = np.ones(64, np.float32).tobytes()
    name = b"blk.0.ffn_down.weight"
    entry = len(name).to_bytes(4, "little") + name + (1).to_bytes(4, "little")
    path.write_bytes((1).to_bytes(4, "little") + entry + (64).to_bytes(4, "little") + sums)
    assert isinstance(read_imatrix(path)["blk.0.ffn_down.weight"], ImatrixEntry)
    opened = os.preadv

    def shortened(handle, into, offset):
        if offset > 30:
            os.truncate(path, 40)
        return opened(handle, into, offset)

    monkeypatch.setattr(os, "preadv", shortened)
    with pytest.raises(InputError, match="ends at byte 40"):
        read_imatrix(path)
