"""Ctrl-C and polite kills in the middle of a job: exit code 130, promptly, and nothing left.

The job is held where it hurts (see `held_command`) when the signal comes: half an artifact lies in
the scratch directory, and no write runs ahead of or behind the held `put`.
"""

import json
import os
import signal
from contextlib import contextmanager

import pytest

from command_line import files_in
from held_command import held

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals"),
    pytest.mark.usefixtures("made"),  # with it the kernels are compiled, which no signal cuts short
]

WHOLE_JOB = 100
"""Writes of bands in the whole job, at least."""

HELD_WRITING = f"""
from itertools import count

from phiquant.job import streaming
from phiquant.targets.streamed_file import StreamedFile

streaming.WAITING = 0  # bytes: the job goes on when a stretch of bands is written, not before
put, writes, halfway = StreamedFile.put, count(1), []

def held(self, offset, array):
    number = next(writes)
    if number == {WHOLE_JOB // 4}:
        halfway.append(number)
        hold()
    if number == {WHOLE_JOB // 2}:
        print("not prompt", flush=True)
    put(self, offset, array)

StreamedFile.put = held
"""

HELD_REMOVAL = """
import shutil

remove = shutil.rmtree

def held(*words, **options):
    if halfway:  # small scratch directories come and go before
        hold()
    remove(*words, **options)

shutil.rmtree = held
"""

ENDLESS_HASHING = """
from phiquant.host import hashes

def endless(files, stop):
    stop.wait()
    raise hashes.Stopped

hashes.hash_opened = endless
"""


@contextmanager
def quantizing(model, tmp_path, hook, *options):
    """A quantization that is held in its writing: the command, and the directory it writes into."""
    place = tmp_path / "place"
    place.mkdir()
    words = ("quantize", model, "--to", "gguf,mlx", "-o", place / "new" / "out", *options)
    with held(tmp_path / "hooks", hook, *words) as command:
        command.wait_until_held()
        assert any(place.rglob("*.safetensors"))
        assert not (place / "new" / "out").exists()
        yield command, place


def assert_interrupted(command, place):
    out, err = command.end()
    assert command.process.returncode == 130, err
    assert "not prompt" not in out
    assert "bits per weight" not in out, "at most the plan, which comes first"
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "phiquant: interrupted; nothing unfinished was left behind"
    assert files_in(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_behind(model, tmp_path, number):
    with quantizing(model, tmp_path, HELD_WRITING) as (command, place):
        command.process.send_signal(number)
        command.let_go()
        assert_interrupted(command, place)


def test_a_second_signal_does_not_cut_the_cleaning_short(model, tmp_path):
    with quantizing(model, tmp_path, HELD_WRITING + HELD_REMOVAL) as (command, place):
        command.process.send_signal(signal.SIGINT)
        command.let_go()
        command.wait_until_held()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            command.process.send_signal(number)
        command.let_go()
        assert_interrupted(command, place)


def test_hashing_the_checkpoint_is_not_waited_for(model, tmp_path):
    """As if the checkpoint had so many gigabytes that their hashes are never there."""
    with quantizing(model, tmp_path, ENDLESS_HASHING + HELD_WRITING) as (command, place):
        command.process.send_signal(signal.SIGINT)
        command.let_go()
        assert_interrupted(command, place)


def test_one_json_document_when_interrupted(model, tmp_path):
    with quantizing(model, tmp_path, HELD_WRITING, "--json", "-q") as (command, place):
        command.process.send_signal(signal.SIGTERM)
        command.let_go()
        out, err = command.end()
    assert command.process.returncode == json.loads(out)["exit_code"] == 130
    assert len(err.splitlines()) == 1
    assert files_in(place) == []


def test_a_hangup_that_is_ignored_stays_ignored(model, tmp_path):
    """`nohup phiquant ...`: the terminal closes and the work goes on."""
    hook = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with quantizing(model, tmp_path, hook + HELD_WRITING) as (command, place):
        command.process.send_signal(signal.SIGHUP)
        command.let_go()
        out, err = command.end()
    assert command.process.returncode == 0, err
    assert "not prompt" in out, "all is written"
    assert (place / "new" / "out" / "gguf" / "phiquant.json").is_file()
