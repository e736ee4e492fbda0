"""A runner in a child: what comes through, and what happens when the child does not behave.

The child runs the real program over a runtime of a few lines, or another program altogether.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import environment
from phiquant.errors import ArtifactError, MissingDependency, ResourceError
from phiquant.host.child import python
from phiquant.phi.config import read_architecture
from phiquant.targets.isolation import runtime_process
from phiquant.targets.isolation.isolated import IsolatedRunner
from phiquant.targets.isolation.limits import Limits, limits_for
from phiquant.targets.table import target
from phiquant.targets.target import Generation
from processes import alive, assert_ends
from sentinels import Sentinel
from tiny_models import tiny_config

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as Linux counts")

LIMITS = Limits(memory=1 << 30, scarce=False, weights=1000, vocabulary=64, processor_seconds=1000)

STUB = """
import os, signal, sys, time
import numpy as np
from types import SimpleNamespace
import phiquant.targets.table as table
from phiquant.errors import ArtifactError, ConfigError, MissingDependency, ResourceError
from phiquant.targets.isolation.serving import serve

class Runner:
    runtime, slow, chat_template = "stub 1.0", False, "{{ x }}"
    def __init__(self, path):
        self.path = path
    def tokenize(self, text):
        return [ord(letter) for letter in text]
    def render(self, messages):
        return messages[0]["content"]
    def stops_at(self, token):
        return token == 7
    def logits(self, tokens, last=None):
        rows = last or len(tokens)
        return np.outer(tokens[-rows:], np.arange(64)).astype(np.float32)
    def generate(self, prompt, limit):
        return SimpleNamespace(tokens=tuple(range(limit)), text="text", stopped=True, seconds=0.5)

{changes}
table.target = lambda name: SimpleNamespace(runner=Runner)
serve()
"""


def runner(monkeypatch, path, changes="", limits=LIMITS, program=STUB):
    """A runner whose child runs `program`, with `changes` to the stub's class."""
    code = program.replace("{changes}", changes)
    monkeypatch.setattr(runtime_process, "PROGRAM", f"exec({code!r})")
    return IsolatedRunner(target("gguf"), path, limits)


def test_every_question_is_answered_as_in_this_process(monkeypatch, tmp_path):
    with runner(monkeypatch, tmp_path) as there:
        assert (there.runtime, there.slow) == ("stub 1.0", False)
        assert there.chat_template == "{{ x }}"
        assert there.tokenize("a\0\U0001f600\ud800") == [97, 0, 0x1F600, 0xD800]
        assert there.stops_at(7) and not there.stops_at(np.int64(8))
        tokens = np.arange(5, dtype=np.int32)
        expected = np.outer(tokens, np.arange(64)).astype(np.float32)
        np.testing.assert_array_equal(there.logits(tokens), expected)
        np.testing.assert_array_equal(there.logits(tokens, last=2), expected[-2:])
        assert there.generate(tokens, 3) == Generation((0, 1, 2), "text", True, 0.5)


def test_large_answers_come_whole(monkeypatch, tmp_path):
    changes = """
def logits(self, tokens, last=None):
    return np.arange(len(tokens) * 50_000, dtype=np.float32).reshape(len(tokens), -1)
Runner.logits = logits
"""
    with runner(monkeypatch, tmp_path, changes, replace(LIMITS, vocabulary=50_000)) as there:
        logits = there.logits(np.zeros(100, np.int32))
    np.testing.assert_array_equal(logits.ravel(), np.arange(5_000_000, dtype=np.float32))


def test_a_template_engine_that_is_a_process_of_its_own_is_asked_from_here(monkeypatch, tmp_path):
    own = replace(target("gguf"), render=lambda path, messages: f"{path.name} {messages}")
    with runner(monkeypatch, tmp_path) as there:
        there._target = own
        assert there.render([]) == f"{tmp_path.name} []"
        there._target = target("onnx")
        assert there.render([{"content": "of the child"}]) == "of the child"


@pytest.mark.parametrize(
    "error, raised",
    [
        ("ArtifactError('in words')", ArtifactError),
        ("ResourceError('in words')", ResourceError),
        ("MissingDependency('a-package', 'in words')", MissingDependency),
        ("ConfigError('in words')", ArtifactError),
        ("IndexError('in words')", ArtifactError),
        ("BaseException('in words')", ArtifactError),
    ],
)
def test_errors_come_as_what_they_are(monkeypatch, tmp_path, error, raised):
    changes = f"def fail(self, text): raise {error}\nRunner.tokenize = fail\n"
    with runner(monkeypatch, tmp_path, changes) as there:
        with pytest.raises(raised, match="in words") as caught:
            there.tokenize("x")
        assert type(caught.value) is raised
        assert there.stops_at(7), "it goes on"


ENDINGS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": "SIGSEGV",
    "os.kill(os.getpid(), signal.SIGKILL)": "memory runs out",
    "os.abort()": "SIGABRT",
    "print('Fatal: all is lost', file=sys.stderr, flush=True); os._exit(9)": "all is lost",
}


@POSIX
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("where", ["__init__", "tokenize"])
def test_a_child_that_dies_is_an_artifact_error(monkeypatch, tmp_path, ending, where):
    # Shut in, it may not send itself signals by the call that Python uses.
    unconfined = (
        "import phiquant.targets.isolation.serving as own; own.confine = lambda readable: ()\n"
    )
    changes = unconfined + f"def die(self, text): {ending}\nRunner.{where} = die\n"
    with (
        pytest.raises(ArtifactError, match=ENDINGS[ending]) as caught,
        runner(monkeypatch, tmp_path, changes) as there,
    ):
        try:
            there.tokenize("x")
        finally:
            if where == "tokenize":
                with pytest.raises(ArtifactError, match=ENDINGS[ending]):
                    there.stops_at(7)
    assert "llama.cpp ended" in str(caught.value)


def test_native_code_that_aborts_has_its_last_words_told(monkeypatch, tmp_path):
    changes = """
def die(self, text):
    os.write(2, b"a.cpp:12: GGML_ASSERT(n > 0) failed\\nsome address\\n")
    os.abort()
Runner.tokenize = die
"""
    with (
        runner(monkeypatch, tmp_path, changes) as there,
        pytest.raises(ArtifactError, match=r"a\.cpp:12: GGML_ASSERT\(n > 0\) failed"),
    ):
        there.tokenize("x")


def test_a_child_that_hangs_is_ended(monkeypatch, tmp_path):
    changes = "def hang(self, text): time.sleep(10**6)\nRunner.tokenize = hang\n"
    with runner(monkeypatch, tmp_path, changes) as there:
        monkeypatch.setattr("phiquant.targets.isolation.limits.PATIENCE", 0.2)
        with pytest.raises(ArtifactError, match="no answer for"):
            there.tokenize("x")
    assert not alive(there._child._process.pid)


def test_the_time_goes_by_the_work():
    one, many = LIMITS.seconds(1), replace(LIMITS, weights=10**9).seconds(1000)
    assert many - one == pytest.approx(10**9 * 1000 / 1e8)


@LINUX
def test_memory_beyond_the_limit_is_the_artifacts_fault(monkeypatch, tmp_path):
    changes = "def fill(self, text): return bytearray(3 << 30)\nRunner.tokenize = fill\n"
    with (
        runner(monkeypatch, tmp_path, changes) as there,
        pytest.raises(ArtifactError, match=r"wants more than 1\.1 GB of memory"),
    ):
        there.tokenize("x")
    with (
        runner(monkeypatch, tmp_path, changes, replace(LIMITS, scarce=True)) as there,
        pytest.raises(ResourceError, match="close other programs"),
    ):
        there.tokenize("x")


@LINUX
def test_the_child_is_shut_in(monkeypatch, tmp_path):
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "file").write_text("read")
    (tmp_path / "secret").write_text("read")
    changes = f"""
import socket, subprocess
from pathlib import Path
def attempt(self, text):
    path = Path({str(tmp_path)!r})
    for deed in (
        (path / "artifact" / "file").read_text,
        (path / "secret").read_text,
        lambda: (path / "artifact" / "new").write_text("x"),
        socket.socket,
        lambda: subprocess.run(["true"]),
    ):
        try:
            deed()
            yield 1
        except OSError:
            yield 0
Runner.tokenize = lambda self, text: list(attempt(self, text))
"""
    with runner(monkeypatch, tmp_path / "artifact", changes) as there:
        expected = {"files", "system calls"} <= set(there.confined)
        done = there.tokenize("x")
    if not expected:
        pytest.skip("this kernel does not do it all")
    assert done == [1, 0, 0, 0, 0]


@LINUX
def test_native_code_that_gets_in_leaves_no_trace(monkeypatch, tmp_path):
    """What the lists should have kept out: here the runtime loads a library of the artifact's."""
    (tmp_path / "artifact").mkdir()
    sentinel = Sentinel(tmp_path)
    library = sentinel.library(tmp_path / "artifact" / "own.so")
    load = f"import ctypes\nctypes.CDLL({str(library)!r})\n"
    subprocess.run([sys.executable, "-c", load], check=True)
    assert sentinel.fired, "anywhere else it leaves one"
    sentinel.mark.unlink()
    changes = f"""
import ctypes
def load(self, text):
    ctypes.CDLL({str(library)!r})
    return [1]
Runner.tokenize = load
"""
    with runner(monkeypatch, tmp_path / "artifact", changes) as there:
        if "files" not in there.confined:
            pytest.skip("this kernel has no Landlock")
        assert there.tokenize("x") == [1]
    assert not sentinel.fired


LIES = {
    "huge array": "answers.write(struct.pack('<IQ', 2, 1 << 60) + b'{}')",
    "huge document": "answers.write(struct.pack('<IQ', 1 << 31, 0))",
    "no JSON": "answers.write(struct.pack('<IQ', 2, 0) + b'\\xff\\xfe')",
    "no object": "answers.write(struct.pack('<IQ', 2, 0) + b'[]')",
    "another shape": "frame({'shape': [2, 64]}, 4)",
    "no shape": "frame({}, 4)",
    "negative": "frame({'shape': [-1, -1]}, 4)",
    "no tokens": "frame({'tokens': ['x']})",
    "nothing": "frame({})",
}
LIAR = """
import json, os, struct, sys
questions, answers = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
questions.readline()
def question():
    length, _ = struct.unpack("<IQ", questions.read(12))
    return json.loads(questions.read(length))
def frame(document, nbytes=0):
    body = json.dumps(document).encode()
    answers.write(struct.pack("<IQ", len(body), nbytes) + body + bytes(nbytes))
question()
frame({"runtime": "liar", "slow": False, "confined": []})
while True:
    question()
    {changes}
"""


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("asked", ["tokenize", "logits"])
def test_a_child_that_lies_is_an_artifact_error(monkeypatch, tmp_path, lie, asked):
    with (
        runner(monkeypatch, tmp_path, LIES[lie], program=LIAR) as there,
        pytest.raises(ArtifactError),
    ):
        there.tokenize("x") if asked == "tokenize" else there.logits(np.zeros(1, np.int32))


def test_it_is_over_with_the_block_whatever_ends_it(monkeypatch, tmp_path):
    there = runner(monkeypatch, tmp_path)
    with pytest.raises(KeyboardInterrupt), there:
        raise KeyboardInterrupt
    assert not alive(there._child._process.pid)
    given_up = runner(monkeypatch, tmp_path)
    given_up.close()
    assert not alive(given_up._child._process.pid)


PARENT = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from phiquant.targets.isolation import runtime_process
from phiquant.targets.isolation.isolated import IsolatedRunner
from phiquant.targets.table import target
from phiquant.targets.target import Generation
from test_isolated import LIMITS, STUB
changes = "def hang(self, text): time.sleep(10**6)\\nRunner.tokenize = hang\\n"
runtime_process.PROGRAM = "exec(%r)" % STUB.replace("{{changes}}", changes)
with IsolatedRunner(target("gguf"), Path(sys.argv[1]), LIMITS) as there:
    print(there._child._process.pid, flush=True)
    there.tokenize("x")
"""


@POSIX
def test_a_parent_that_is_killed_leaves_no_orphan(tmp_path):
    path = [str(folder) for folder in Path(__file__).parents[:2]]
    command = [*python(f"exec({PARENT.format(path=path)!r})"), str(tmp_path)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert_ends(child)


def test_links_out_of_the_artifact_are_refused(monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("x")
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "weights").symlink_to(tmp_path / "secret")
    there = runner(monkeypatch, tmp_path / "artifact")
    try:
        with pytest.raises(ArtifactError, match="weights is a link to"):
            there.__enter__()
    finally:
        there.close()


def test_links_of_the_hubs_cache_are_followed(monkeypatch, tmp_path):
    model = tmp_path / "models--org--name"
    snapshot, blobs = model / "snapshots" / "abc", model / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_text("weights")
    (snapshot / "model").symlink_to("../../blobs/123")
    changes = "Runner.tokenize = lambda self, text: [len((self.path / 'model').read_text())]\n"
    with runner(monkeypatch, snapshot, changes) as there:
        assert there.tokenize("x") == [7]


@pytest.mark.parametrize("name", ["gguf", "mlx", "onnx", "openvino"])
def test_limits_follow_from_the_model(name):
    few, many = (
        limits_for(target(name), read_architecture(tiny_config(hidden_size=size)), 256, 4096)
        for size in (64, 4096)
    )
    assert (1 << 30) <= few.memory <= many.memory
    assert few.seconds(100) < many.seconds(100)
    assert few.processor_seconds < many.processor_seconds
