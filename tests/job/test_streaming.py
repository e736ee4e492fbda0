"""One reading, several writers, and writes that fail."""

import threading

import numpy as np
import pytest

from phiquant.job import streaming
from phiquant.job.streaming import BehindWriter, Outlet, core_bands, stream
from phiquant.phi.checkpoint import Checkpoint
from phiquant.planning.plan import PlanRow
from tiny_models import tiny_config, tiny_weights, write_tiny_checkpoint


class Collector:
    """A rounding that keeps float32, and a writer that keeps what it is given."""

    def __init__(self):
        self.bands = {}

    def rounding(self, first, weights):
        return {"data": weights.copy()}

    def write(self, row, first, parts):
        self.bands.setdefault(row.output, {})[first] = parts["data"]


def rows(checkpoint, names=None):
    return [
        PlanRow(name, name.upper(), None, None, tensor.shape, "", 0, "")
        for name, tensor in checkpoint.tensors.items()
        if names is None or name in names
    ]


def test_every_band_reaches_every_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BAND", 1000)
    checkpoint = Checkpoint.open(write_tiny_checkpoint(tmp_path, dtype="F32"))
    one, two = Collector(), Collector()
    only = "model.layers.0.mlp.down_proj.weight"
    outlets = [Outlet(row, one.rounding, one) for row in rows(checkpoint)]
    outlets += [Outlet(row, two.rounding, two) for row in rows(checkpoint, {only})]
    seen = []
    stream(checkpoint, outlets, seen.append)
    for name, weights in tiny_weights(tiny_config()).items():
        bands = [band for _, band in sorted(one.bands[name.upper()].items())]
        assert max(band.size for band in bands) <= 1000
        np.testing.assert_array_equal(np.concatenate(bands).reshape(weights.shape), weights)
    assert two.bands.keys() == {only.upper()}
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].done == seen[-1].total == checkpoint.nbytes


@pytest.mark.parametrize("shape", [(7,), (1, 5), (1000, 3), (3, 10_000_000)])
def test_bands_cover_all_rows_once(shape):
    covered = [row for first, last in core_bands(shape) for row in range(first, last)]
    assert covered == list(range(shape[0]))


def test_writes_run_in_order_in_one_other_thread():
    seen = []
    with BehindWriter() as behind:
        for i in range(100):
            behind.submit(1, lambda i=i: seen.append((i, threading.get_ident())))
    assert [i for i, _ in seen] == list(range(100))
    assert {thread for _, thread in seen} - {threading.get_ident()}
    assert len({thread for _, thread in seen}) == 1


def test_a_failing_write_reaches_the_caller():
    def fail():
        raise OSError("full")

    with pytest.raises(OSError, match="full"), BehindWriter() as behind:
        behind.submit(1, fail)


@pytest.mark.parametrize(
    ("nbytes", "told"), [(10, ["goes on", "written"]), (11, ["waits", "written", "goes on"])]
)
def test_the_caller_waits_when_much_is_pending(monkeypatch, nbytes, told):
    """The write ends as soon as the caller waits for it, or else when the caller is done."""
    monkeypatch.setattr(streaming, "WAITING", 10)
    gate, seen = threading.Event(), []

    class Watched(BehindWriter):
        def _await_oldest(self):
            if not gate.is_set():
                seen.append("waits")
            gate.set()
            super()._await_oldest()

    def write():
        gate.wait()
        seen.append("written")

    with Watched() as behind:
        behind.submit(nbytes, write)
        behind.submit(1, lambda: None)
        seen.append("goes on")
        gate.set()
    assert seen == told
