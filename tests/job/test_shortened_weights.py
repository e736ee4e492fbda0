"""Weights that are cut short while a job reads them: one sentence, and no more left than a journal.

The file is cut just before one of the reads at given places, of which every byte of the weights
takes some; so each instant at which it would matter can be reached, and the same one every time.
"""

import os
import shutil

import numpy as np
import pytest

from command_line import files_in, tiny_model
from killing import Killing

pytestmark = pytest.mark.skipif(
    not (hasattr(os, "fork") and hasattr(os, "preadv")), reason="needs fork and preadv"
)

SMALL = ("--calibration", "text.txt", "--calibration-size", "2x64")
COMMANDS = {
    "fast": ("quantize", "model", "--to", "gguf,mlx,onnx,openvino", "-o", "out", "-q"),
    "balanced": ("quantize", "model", "--quality", "balanced", *SMALL, "-o", "out", "-q"),
    "best": ("quantize", "model", "--to", "mlx", "--quality", "best", *SMALL, "-o", "out", "-q"),
    "plan": ("plan", "model", "--precision", "int8", "-q"),
}
MOMENTS = {"fast": 6, "balanced": 3, "best": 3, "plan": 3}
"""Of each command, spread over its reads, the first and the last among them."""


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shortened")
    tiny_model(directory / "model", hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    (directory / "text.txt").write_text("A text of few words, again and again. " * 40)
    shutil.copytree(directory / "model", directory / "whole")
    with Killing(directory) as server:
        small = ("--calibration", directory / "text.txt", "--calibration-size", "2x64")
        server.warm("quantize", directory / "model", "--to", "gguf,mlx,onnx,openvino")
        server.warm("quantize", directory / "model", "--to", "mlx", "--quality", "best", *small)
        yield server


def restore(killing):
    shutil.copy(killing.directory / "whole" / "model.safetensors", killing.directory / "model")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_checkpoint_shortened_before_any_read(killing, command):
    words, weights = COMMANDS[command], killing.directory / "model" / "model.safetensors"
    ended, reads = killing.at_call(*words, name="preadv")
    assert ended == 0, killing.log.read_text()
    shutil.rmtree(killing.directory / "out", ignore_errors=True)
    before = files_in(killing.directory)
    for at in sorted({int(x) for x in np.linspace(1, reads, MOMENTS[command])}):
        ended = killing.at_call(*words, name="preadv", at=at, cut=str(weights))
        assert ended is not None, (at, "killed by a signal")
        told = killing.log.read_text().splitlines()
        assert ended[0] == 2, (at, told)
        assert told[-1].startswith("phiquant: ")
        assert "model.safetensors ends at byte 1,000" in told[-1]
        assert "shortened while it was read" in told[-1]
        left = sorted(set(files_in(killing.directory)) - set(before))
        assert all(name.startswith(".out.phiquant-journal") for name in left), (at, left)
        assert not left or ".out.phiquant-journal" in told[-1]
        restore(killing)
        shutil.rmtree(killing.directory / ".out.phiquant-journal", ignore_errors=True)
