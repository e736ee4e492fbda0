"""Ctrl-C and polite kills while a runtime is at work in its own process: both processes end."""

import os
import signal
import sys
import time

import pytest

from command_line import start
from processes import assert_ends

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

HANGING = """
import os, sys
if "verify" in sys.argv:
    from phiquant.targets.isolation import runtime_process
    runtime_process.PROGRAM = (
        "import os, pathlib, time; "
        "pathlib.Path({mark!r} + '.new').write_text(str(os.getpid())); "
        "os.rename({mark!r} + '.new', {mark!r}); time.sleep(10**6)"
    )
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_runtimes_process_ends_too(model, made, tmp_path, number):
    mark, hooks = tmp_path / "pid", tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HANGING.format(mark=str(mark)))
    path = os.pathsep.join([str(hooks), *filter(None, sys.path)])
    command = ("verify", made[0] / "gguf", "--against", model, "-q")
    process = start(*command, environ={"PYTHONPATH": path})
    while not mark.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    assert "interrupted" in err
    assert_ends(int(mark.read_text()))
