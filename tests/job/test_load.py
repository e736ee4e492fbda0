"""Many jobs at once: each makes what it would alone, and one that finds no room does not begin."""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import pytest

from command_line import assert_refused, call, contained, environment, files_in, tiny_model
from killing import Killing
from phiquant.job import room

JOBS = 8
OTHER = """
import sys
from phiquant.host.announcements import announced
with announced(int(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("load") / "model")


def digest(directory):
    (file,) = directory.glob("*.gguf")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_jobs_and_a_verification_in_one_tree(model, tmp_path):
    with Killing(tmp_path) as server:
        server.warm("quantize", model)
        assert server.run("quantize", model, "-o", "tree/first", "-q")[0] == 0
        alone = digest(tmp_path / "tree" / "first")
        places = [f"tree/{number % 2}/{number}" for number in range(JOBS)]
        commands = [("quantize", model, "-o", place, "-q") for place in places]
        commands.append(("verify", "tree/first", "--against", model, "-q"))
        codes = server.together(*commands)
    logs = [(tmp_path / f"log{number or ''}").read_text() for number in range(JOBS + 1)]
    assert codes == [0] * (JOBS + 1), logs
    assert {digest(tmp_path / place) for place in places} == {alone}
    assert [name for name in files_in(tmp_path) if "phiquant-" in name] == []


def test_the_ninth_is_refused_before_it_begins(model, tmp_path, monkeypatch):
    """What is free would do for it, but other jobs at work have announced that they will take it.
    Once they are killed the same command goes on.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(room, "available_memory", lambda: 9_000_000_000)
    pipe = subprocess.PIPE
    place = tmp_path / "place"
    place.mkdir()
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                contained(
                    subprocess.Popen(
                        [sys.executable, "-c", OTHER, "1200000000"],
                        stdin=pipe,
                        stdout=pipe,
                        text=True,
                        env=environment(TMPDIR=str(tmp_path)),
                    )
                )
            )
            for _ in range(JOBS)
        ]
        assert [other.stdout.readline() for other in others] == ["ready\n"] * JOBS
        ended = call("quantize", model, "-o", place / "out", "-q")
        assert_refused(ended, 4, "9.00 GB are free", "other phiquant jobs at work", "wait for them")
        promised = float(re.search(r"will take ([\d.]+)", ended.err)[1])
        assert 8.9 < promised <= 9.6
        assert files_in(place) == []
        for other in others:
            other.kill()
            other.wait()
    ended = call("quantize", model, "-o", place / "out", "-q")
    assert ended.code == 0, ended.err
