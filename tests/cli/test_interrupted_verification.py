"""Ctrl-C and polite kills while a runtime is at work in its own process: both processes end."""

import os
import select
import signal
import sys

import pytest

from command_line import start
from processes import alive, assert_ends

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

HANGING = """
import sys
if "verify" in sys.argv:
    from phiquant.targets.isolation import runtime_process
    runtime_process.PROGRAM = {program!r}
"""
PROGRAM = """
import os, time
from phiquant.targets.isolation import serving

pipe = os.open({pipe!r}, os.O_RDWR)  # before it is shut in

def load(self, path):
    os.write(pipe, b"%d" % os.getpid())
    time.sleep(10**6)

serving.Served.load = load
serving.serve()
"""
"""A runtime that never comes to an end of loading, and says when it has begun."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_runtimes_process_ends_too(model, made, tmp_path, number):
    pipe, hooks = tmp_path / "pipe", tmp_path / "hooks"
    os.mkfifo(pipe)
    told = os.open(pipe, os.O_RDWR)
    hooks.mkdir()
    program = PROGRAM.format(pipe=str(pipe))
    (hooks / "sitecustomize.py").write_text(HANGING.format(program=program))
    path = os.pathsep.join([str(hooks), *filter(None, sys.path)])
    command = ("verify", made[0] / "gguf", "--against", model, "-q")
    process = start(*command, environ={"PYTHONPATH": path})
    while not select.select([told], [], [], 0.1)[0]:
        assert process.poll() is None, process.communicate()
    child = int(os.read(told, 100))
    os.close(told)
    assert alive(child)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    assert "interrupted" in err
    assert_ends(child)
