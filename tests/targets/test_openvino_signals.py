"""A signal after OpenVINO was used ends the command as any other does, and does not crash it."""

import subprocess
import sys

import pytest
from openvino_tiny import some_tokens, tiny_source, write_artifact

from command_line import environment
from phiquant.targets.openvino import TARGET
from phiquant.targets.openvino.signal_stack import SignalStack

pytest.importorskip("openvino_genai")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the plugin does this on Linux")

INTERRUPTED = """
import signal, sys
from pathlib import Path
import numpy as np
from phiquant.cli.ending import ending
from phiquant.targets.openvino import TARGET

with ending(False):
    with TARGET.runner(Path(sys.argv[1])) as runner:
        runner.generate(np.arange(3, 9, dtype=np.int32), 2)
    signal.raise_signal(signal.SIGTERM)
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    place = tmp_path_factory.mktemp("ov")
    write_artifact(tiny_source(place / "source"), place / "artifact")
    return place / "artifact"


def test_a_runner_leaves_the_stack_for_signals_as_it_was(artifact):
    before = SignalStack.of_this_thread()
    with TARGET.runner(artifact) as runner:
        runner.logits(some_tokens(9))
        runner.generate(some_tokens(9), 2)
    after = SignalStack.of_this_thread()
    assert (after.address, after.size, after.flags) == (before.address, before.size, before.flags)


def test_a_signal_afterwards_ends_the_command_with_130(artifact):
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(artifact)],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert ended.returncode == 130, ended
    assert "interrupted" in ended.stderr
