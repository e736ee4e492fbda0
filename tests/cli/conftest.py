"""One tiny model and its artifacts for all tests of the command line; none of them changes it."""

import json

import pytest

from command_line import call, tiny_model


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A checkpoint directory."""
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny-phi")


@pytest.fixture(scope="session")
def made(model, tmp_path_factory):
    """The directory with `gguf` and `mlx` from one command, and the document that it printed."""
    output = tmp_path_factory.mktemp("made") / "out"
    ended = call("quantize", model, "--to", "gguf,mlx", "-o", output, "--json")
    assert ended.code == 0, ended.err
    return output, json.loads(ended.out)
