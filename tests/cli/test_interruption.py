"""Ctrl-C and polite kills in the middle of a job: exit code 130, promptly, and nothing left.

The job is held where it hurts: a module that Python loads at start-up slows the writing of each
band, so that half an artifact lies in the scratch directory when the signal comes.
"""

import json
import os
import signal
import time

import pytest

from command_line import files_in, start

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals"),
    pytest.mark.usefixtures("made"),  # with it the kernels are compiled, which no signal cuts short
]

SLOW_WRITING = """
import time
from phiquant.targets.streamed_file import StreamedFile

put = StreamedFile.put

def slow(self, offset, array):
    time.sleep(0.1)
    put(self, offset, array)

StreamedFile.put = slow
"""

SLOW_REMOVAL = """
import shutil, time

remove = shutil.rmtree

def slow(*words, **options):
    time.sleep(1.0)
    remove(*words, **options)

shutil.rmtree = slow
"""

SLOW_HASHING = """
import time
import blake3
from phiquant.host import hashes

hashes.PIECE = 512  # some thousand pieces

class Slow:
    def __init__(self, **options):
        self.digest = fast(**options)
    def update(self, data):
        time.sleep(0.1)
        self.digest.update(data)
    def hexdigest(self):
        return self.digest.hexdigest()

fast, blake3.blake3 = blake3.blake3, Slow
"""


def begin(model, tmp_path, hook, *options):
    """Start a held quantization; returns once its scratch directory has a file with data."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(hook)
    place = tmp_path / "place"
    place.mkdir()
    path = os.pathsep.join([str(hooks), *filter(None, map(str, __import__("sys").path))])
    words = ("quantize", model, "--to", "gguf,mlx", "-o", place / "new" / "out", *options)
    process = start(*words, environ={"PYTHONPATH": path})
    deadline = time.monotonic() + 120
    while not any(place.rglob("*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (place / "new" / "out").exists()
    return process, place


def assert_interrupted(process, place, within=10.0):
    began = time.monotonic()
    out, err = process.communicate(timeout=120)
    took = time.monotonic() - began
    assert process.returncode == 130, err
    assert "bits per weight" not in out, "at most the plan, which comes first"
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "phiquant: interrupted; nothing unfinished was left behind"
    assert files_in(place) == []
    assert took < within


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_behind(model, tmp_path, number):
    process, place = begin(model, tmp_path, SLOW_WRITING)
    process.send_signal(number)
    assert_interrupted(process, place)


def test_a_second_signal_does_not_cut_the_cleaning_short(model, tmp_path):
    process, place = begin(model, tmp_path, SLOW_WRITING + SLOW_REMOVAL)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.05)
    assert_interrupted(process, place)


def test_hashing_the_checkpoint_is_not_waited_for(model, tmp_path):
    """As slow here as if the checkpoint had tens of gigabytes: three minutes."""
    process, place = begin(model, tmp_path, SLOW_HASHING + SLOW_WRITING)
    process.send_signal(signal.SIGINT)
    assert_interrupted(process, place, within=30.0)


def test_one_json_document_when_interrupted(model, tmp_path):
    process, place = begin(model, tmp_path, SLOW_WRITING, "--json", "-q")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == json.loads(out)["exit_code"] == 130
    assert len(err.splitlines()) == 1
    assert files_in(place) == []


def test_a_hangup_that_is_ignored_stays_ignored(model, tmp_path):
    """`nohup phiquant ...`: the terminal closes and the work goes on."""
    hook = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process, place = begin(model, tmp_path, hook + SLOW_WRITING)
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert (place / "new" / "out" / "gguf" / "phiquant.json").is_file()
