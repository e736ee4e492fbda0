"""Weights that change while a job reads them make no artifact."""

import os
import time

import pytest

from command_line import assert_refused, call, files_in, tiny_model
from phiquant.phi.checkpoint import Checkpoint


def write_over(path):
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x01\x02\x03\x04")


def replaced(path):
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


def touched_back(path):
    """Written to, with the time of the last write set back to what it was."""
    before = path.stat()
    write_over(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [write_over, replaced, touched_back])
def test_changed_weights_are_refused(change, tmp_path, monkeypatch):
    model = tiny_model(tmp_path / "model")
    weights = model / "model.safetensors"
    from phiquant.job import making

    stream = making.stream

    def meanwhile(*arguments):
        time.sleep(0.02)  # beyond the grain of the file system's clock
        change(weights)
        stream(*arguments)

    monkeypatch.setattr(making, "stream", meanwhile)
    ended = call("quantize", model, "--to", "mlx", "-o", tmp_path / "out", "-q")
    assert_refused(ended, 2, "model.safetensors", "changed while it was read")
    assert [name for name in files_in(tmp_path) if not name.startswith("model")] == []


def test_unchanged_weights_are_not(tmp_path):
    checkpoint = Checkpoint.open(tiny_model(tmp_path / "model"))
    checkpoint.weight("lm_head.weight")
    checkpoint.check_unchanged()
