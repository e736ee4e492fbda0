"""Bands of rows: every row once, failures passed on, and several callers at a time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import pytest

from phiquant.quantization.bands import WEIGHTS_PER_BAND, in_bands
from phiquant.targets.gguf.grids import GRIDS


@pytest.mark.parametrize("rows", [1, 2, 31, 1000, 4097])
@pytest.mark.parametrize("columns", [1, 256, 4096, 2 * WEIGHTS_PER_BAND])
def test_every_row_once(rows, columns):
    seen = np.zeros(rows, np.int64)
    lock = Lock()

    def work(first, last):
        assert first < last
        with lock:
            seen[first:last] += 1

    in_bands(rows, columns, work)
    assert (seen == 1).all()


def test_failures_are_passed_on():
    def work(first, last):
        if first > 500:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        in_bands(4000, 4096, work)


def test_several_callers_at_a_time():
    weights = np.random.default_rng(0).standard_normal((600, 1024)).astype(np.float32)
    alone = GRIDS["Q4_K"].encode(weights)["data"]
    with ThreadPoolExecutor(4) as pool:
        for encoded in pool.map(lambda _: GRIDS["Q4_K"].encode(weights)["data"], range(8)):
            assert np.array_equal(encoded, alone)
