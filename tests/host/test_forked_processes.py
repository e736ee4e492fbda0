"""A process that has rounded and hashed may be forked: the child does both with own threads."""

import multiprocessing
import sys

import numpy as np
import pytest

from phiquant.host import threads
from phiquant.host.hashes import hash_array
from phiquant.quantization import bands

MINUTE = 60

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere processes are not forked by default"
)


def all_pools(answers):
    """Whatever is spread over threads that a process keeps."""
    covered = []
    bands.in_bands(8, bands.WEIGHTS_PER_BAND, lambda first, last: covered.append((first, last)))
    products = np.empty((2, 4096), np.float32)
    threads.multiply(np.ones((2, 8), np.float32), np.ones((4096, 8), np.float32), products)
    digest = hash_array(np.arange(1 << 20, dtype=np.float32))
    answers.put((sorted(covered), float(products.sum()), digest))


def test_a_forked_process_does_what_its_parent_did(monkeypatch):
    monkeypatch.setattr(bands, "cores", lambda: 2)
    monkeypatch.setattr(threads, "CORES", 2)
    forking = multiprocessing.get_context("fork")
    answers = forking.SimpleQueue()
    all_pools(answers)
    expected = answers.get()
    child = forking.Process(target=all_pools, args=(answers,))
    child.start()
    child.join(MINUTE)
    try:
        assert child.exitcode == 0, "it waits for threads that only its parent has"
        assert answers.get() == expected
    finally:
        child.kill()
