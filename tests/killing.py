"""`phiquant` killed at a chosen change to the file system, in processes that start at once.

A server imports what the command needs and forks a process for every run: the command as it is
installed, without the seconds of its imports. What it is warmed with it does itself, so that
compiled kernels too are in memory before the first fork. A process is killed by SIGKILL at the n-th
event of Python's audit hooks that tells of a change below its working directory, just before the
change; so every instant between two changes can be reached, and the same instant every time.
Changes elsewhere are not counted: compiled kernels are written to a cache by the first run alone.
"""

import json
import subprocess
import sys
import tempfile

from command_line import environment

SERVER = """
import itertools, json, os, resource, signal, sys, tempfile
import phiquant.cli.main, phiquant.cli.quantization, phiquant.cli.cleaning
import phiquant.job.making, phiquant.targets.gguf.writer, phiquant.targets.mlx.writer
import phiquant.targets.onnx.writer, phiquant.targets.openvino.writer

phiquant.job.forecast.product_rate = lambda *_: 1e11  # measured for seconds
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

def at_a_call(argv, name, at, cut=None, error=None, limit=None, spare=None,
              temporary=None):
    # Before the call of os.NAME with the number `at` a file is cut short, or an error raised.
    numbers = itertools.count(1)  # threads call at the same time
    genuine = getattr(os, name)
    def counting(*arguments):
        number = next(numbers)
        if number == at and cut:
            os.truncate(cut, 1000)
        if number == at and error:
            raise OSError(error, os.strerror(error))
        return genuine(*arguments)
    setattr(os, name, counting)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if spare is not None:
        phiquant.job.forecast.SPARE = spare
    tempfile.tempdir = temporary or tempfile.tempdir
    code, _ = run(argv, None)
    return code, next(numbers) - 1

def warm(log, argv):
    # In this process, which has no hook, and whose own output are its answers.
    answers, code = os.dup(1), 0
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
    sys.argv = ["phiquant", *argv]
    try:
        phiquant.cli.main.main()
    except SystemExit as ended:
        code = ended.code or 0
    sys.stdout.flush()
    os.dup2(answers, 1)
    os.close(answers)
    return code

def begin(order):
    # A process for the order, and where it tells how it ended.
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    os.close(read)
    with open(order["log"], "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.chdir(order["cwd"])
    try:
        os.write(write, json.dumps(OBEY[order["how"]](**order["by"])).encode())
    finally:
        os._exit(0)

OBEY = {"killed": run, "call": at_a_call}
for line in sys.stdin:
    orders = json.loads(line)
    if isinstance(orders, dict):
        print(warm(**orders), flush=True)
        continue
    answers = []
    for child, read in [begin(order) for order in orders]:
        with open(read, "rb") as told:
            answers.append(told.read().decode() or "null")
        os.waitpid(child, 0)
    print(f"[{', '.join(answers)}]", flush=True)
"""


class Killing:
    """Runs of the command in `directory`. Use it as a context."""

    def __init__(self, directory):
        self.directory = directory
        self.log = directory / "log"
        # Announcements of jobs elsewhere would be changes to the file system that are counted.
        self._temporary = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(TMPDIR=self._temporary.name),
        )

    def __enter__(self):
        return self

    def __exit__(self, *ended):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._temporary.cleanup()

    def warm(self, *words):
        """Let the server itself run the command, whose output is then removed."""
        with tempfile.TemporaryDirectory() as place:
            order = {"log": str(self.log), "argv": [*map(str, words), "-o", f"{place}/out", "-q"]}
            assert self._answer(order) == 0, self.log.read_text()

    def run(self, *words, kill_at=None):
        """Exit code and number of changes to the file system; None for a run that was killed."""
        return self._ended("killed", [words], kill_at=kill_at)[0]

    def together(self, *commands):
        """Exit codes of commands that run at the same time; logs end with their numbers."""
        return [ended and ended[0] for ended in self._ended("killed", commands, kill_at=None)]

    def at_call(self, *words, name, at=None, **what):
        """Exit code and number of calls of os.`name`. Before the one with the number `at` the file
        `cut` is cut down to 1000 bytes, or `error`, a number, is raised. Files may have `limit`
        bytes, `spare` bytes are expected to be needed beside an artifact's tensors, and temporary
        files lie in `temporary`. None for a run that did not end itself.
        """
        return self._ended("call", [words], name=name, at=at, **what)[0]

    def _ended(self, how, commands, **by):
        orders = [
            {
                "how": how,
                "by": {"argv": [str(word) for word in words], **by},
                "cwd": str(self.directory),
                "log": f"{self.log}{number or ''}",
            }
            for number, words in enumerate(commands)
        ]
        return self._answer(orders)

    def _answer(self, orders):
        self._server.stdin.write(json.dumps(orders) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())
