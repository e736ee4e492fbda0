"""`phiquant` killed at a chosen change to the file system, in processes that start at once.

A server imports what the command needs and forks a process for every run: the command as it is
installed, without the seconds of its imports. A process is killed by SIGKILL at the n-th event of
Python's audit hooks that tells of a change below its working directory, just before the change; so
every instant between two changes can be reached, and the same instant every time. Changes elsewhere
are not counted: compiled kernels are written to a cache by the first run alone.
"""

import json
import os
import subprocess
import sys

from command_line import environment

SERVER = """
import json, os, signal, sys
import phiquant.cli.main, phiquant.cli.quantization, phiquant.cli.cleaning
import phiquant.job.making, phiquant.targets.gguf.writer, phiquant.targets.mlx.writer
import phiquant.targets.onnx.writer, phiquant.targets.openvino.writer

phiquant.job.forecast.product_rate = lambda: 1e11  # measured for seconds
phiquant.job.layerwise.product_rate = lambda: 1e11

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
READ_ONLY = ("r", "rb")

def is_change(event, arguments, home):
    if event == "ctypes.dlsym":  # how renameat2 is called
        return arguments[1] == "renameat2"
    if event not in CHANGES or (event == "open" and arguments[1] in READ_ONLY):
        return False
    path = arguments[0]  # or the number of a file that is open already
    return not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(home)

def run(argv, kill_at):
    count, home = 0, os.getcwd()
    def hook(event, arguments):
        nonlocal count
        if not is_change(event, arguments, home):
            return
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    sys.argv = ["phiquant", *argv]
    code = 0
    try:
        phiquant.cli.main.main()
    except SystemExit as ended:
        code = ended.code or 0
    return code, count

for line in sys.stdin:
    order = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with open(order["log"], "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(order["cwd"])
        try:
            code, count = run(order["argv"], order["kill_at"])
            os.write(write, json.dumps([code, count]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as told:
        said = told.read()
    os.waitpid(child, 0)
    print(said.decode() or "null", flush=True)
"""


class Killing:
    """Runs of the command in `directory`. Use it as a context."""

    def __init__(self, directory):
        self.directory = directory
        self.log = directory / "log"
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __enter__(self):
        return self

    def __exit__(self, *ended):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(self, *words, kill_at=None):
        """Exit code and number of changes to the file system; None for a run that was killed."""
        order = {
            "argv": [str(word) for word in words],
            "cwd": str(self.directory),
            "kill_at": kill_at,
            "log": os.fspath(self.log),
        }
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())
