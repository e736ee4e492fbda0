"""What jobs announce is counted while they live, less what they have taken already."""

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager

import pytest

from command_line import environment
from phiquant.host import announcements
from phiquant.host.announcements import announced
from phiquant.host.memory import used_memory

GB = 10**9
OTHER = """
import sys
from phiquant.host.announcements import announced
with announced(int(sys.argv[1])) as promised:
    print(promised, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """No job of another test is seen."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def other_job(memory):
    """Another process that announces; the block has the process and what it was told."""
    words = [sys.executable, "-c", OTHER, str(memory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment()) as process:
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def files(place):
    return [path.name for path in place.rglob("*.job")]


def test_the_later_sees_the_earlier_and_not_the_reverse(own_place):
    whole = 100 * GB  # more than this process has, whatever other tests left in it
    with announced(whole) as first, other_job(2 * GB) as (_, second):
        assert first == 0
        used = used_memory(os.getpid())
        if used is not None:
            assert 0 < whole - second < 10 * GB
            with announced(1) as third:
                assert 1.5 * GB < third - (whole - used_memory(os.getpid())) <= 2 * GB
        assert len(files(own_place)) == 2
    with announced(1) as now:
        assert now == 0
    assert files(own_place) == []


def test_a_dead_job_counts_for_nothing_and_its_file_goes(own_place):
    with other_job(5 * GB) as (process, _):
        assert len(files(own_place)) == 1
        process.kill()
        process.wait()
        assert len(files(own_place)) == 1
        with announced(GB) as promised:
            assert promised == 0
            assert len(files(own_place)) == 1
    assert files(own_place) == []


def test_what_a_job_has_taken_is_not_counted_again(monkeypatch):
    with other_job(5 * GB):
        for used, outstanding in ((0, 5 * GB), (2 * GB, 3 * GB), (6 * GB, 0), (None, 0)):
            monkeypatch.setattr(announcements, "used_memory", lambda _, used=used: used)
            with announced(1) as promised:
                assert promised == outstanding


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_a_process_has_taken():
    before = used_memory(os.getpid())
    held = bytearray(os.urandom(50_000_000))
    assert used_memory(os.getpid()) - before > 40_000_000
    del held
    assert used_memory(2**22 + 1) is None


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_place_of_someone_else_is_left_alone(own_place):
    elsewhere = own_place / "elsewhere"
    elsewhere.mkdir()
    owner = os.getuid() if hasattr(os, "getuid") else 0
    (own_place / f"phiquant-jobs-{owner}").symlink_to(elsewhere)
    with announced(GB) as promised:
        assert promised == 0
    assert list(elsewhere.iterdir()) == []


def test_a_gate_that_stays_shut_is_not_waited_for(own_place, monkeypatch):
    from phiquant.host.lock import Lock

    monkeypatch.setattr(announcements, "PATIENCE", 0.05)
    with announced(1):
        pass
    (directory,) = own_place.glob("phiquant-jobs-*")
    with Lock.take(directory / "gate", remove=False), announced(GB):
        assert len(files(own_place)) == 1
