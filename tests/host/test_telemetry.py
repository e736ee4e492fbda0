"""Runtimes report nothing to their makers from phiquant's processes."""

import os
import subprocess
import sys

import pytest

from command_line import environment, tiny_model
from phiquant.host.child import python

HOOK = """
import socket, sys
from pathlib import Path
connect = socket.socket.connect
def connected(self, address):
    if not str(address[0]).startswith(("127.", "localhost", "::1")):
        Path({mark!r}).write_text(str(address))
    return connect(self, address)
def asked(host, *words, **options):
    Path({mark!r}).write_text(str(host))
    raise OSError("no network in this test")
socket.socket.connect = connected
socket.getaddrinfo = asked
"""


def test_openvinos_package_for_it_is_not_imported():
    pytest.importorskip("openvino")
    statements = (
        "from phiquant.host.telemetry import no_telemetry; no_telemetry(); import openvino, os; "
        "assert sys.modules['openvino_telemetry'] is None; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    ended = subprocess.run(python(statements), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "1\n"


def test_no_command_reaches_for_the_network(tmp_path):
    """With every target that is installed: none is asked for a model, and none reports."""
    model = tiny_model(tmp_path / "model", num_hidden_layers=1)
    hooks, mark = tmp_path / "hooks", tmp_path / "mark"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK.format(mark=str(mark)))
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. 1 = 1.\n" * 20)
    changes = {"PYTHONPATH": os.pathsep.join([str(hooks), *filter(None, sys.path)])}
    words = ("--text", tmp_path / "text.txt", "--windows", "1", "--against", model, "-q")
    for command in (
        ("quantize", model, "--to", "openvino", "-o", tmp_path / "out", "-q"),
        ("inspect", tmp_path / "out"),
        ("verify", tmp_path / "out", *words),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "phiquant", *map(str, command)],
            capture_output=True,
            text=True,
            env=environment(**changes),
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert not mark.exists(), mark.read_text()
