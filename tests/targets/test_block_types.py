"""The table of ggml's storage types is the `gguf` package's, and the grids'."""

import pytest

from phiquant.targets.gguf.block_types import BLOCK_TYPES
from phiquant.targets.gguf.grids import GRIDS


def test_the_table_is_that_of_the_gguf_package():
    gguf = pytest.importorskip("gguf")
    theirs = {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
    ours = {number: (kind.name, kind.weights, kind.nbytes) for number, kind in BLOCK_TYPES.items()}
    assert ours == theirs


def test_every_grid_has_its_type():
    assert GRIDS.keys() <= {kind.name for kind in BLOCK_TYPES.values()}
