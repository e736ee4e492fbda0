"""Not enough disk or memory: exit code 4, a sentence, and nothing left behind."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from command_line import assert_refused, call, files_in, run, tiny_model
from phiquant.targets.streamed_file import StreamedFile

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def place(tmp_path):
    """An empty directory to write into."""
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


def test_a_disk_that_is_too_small_is_seen_before_the_first_byte(model, place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    monkeypatch.setattr(StreamedFile, "__init__", lambda *_: pytest.fail("wrote something"))
    ended = call("quantize", model, "-o", place / "new" / "out", "-q", "--json")
    assert ended.code == json.loads(ended.out)["exit_code"] == 4
    assert "GB" in ended.err
    assert "-o" in ended.err
    assert files_in(place) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_while_tensors_are_written(model, place, monkeypatch, number):
    put, seen = StreamedFile.put, []

    def fills(self, offset, array):
        seen.append(offset)
        if len(seen) > 5:
            raise OSError(number, os.strerror(number))
        put(self, offset, array)

    monkeypatch.setattr(StreamedFile, "put", fills)
    ended = call("quantize", model, "--to", "gguf,mlx", "-o", place / "new" / "out", "-q")
    assert_refused(ended, 4, "filled up", str(place))
    assert len(seen) > 5
    assert files_in(place) == []


def test_a_disk_that_fills_while_the_record_is_written(model, place, monkeypatch):
    def fills(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("phiquant.job.making.write_records", fills)
    assert_refused(call("quantize", model, "-o", place / "out", "-q"), 4, "filled up")
    assert files_in(place) == []


def test_another_error_of_the_disk_is_told_as_it_is(model, place, monkeypatch):
    def breaks(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(StreamedFile, "put", breaks)
    assert_refused(call("quantize", model, "-o", place / "out", "-q"), 2, "the system refused")
    assert files_in(place) == []


def test_a_file_system_that_cannot_reserve_space(model, made, place, monkeypatch):
    """Some network file systems: the artifact is the same."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    ended = call("quantize", model, "-o", place / "out", "-q")
    assert ended.code == 0, ended.err
    (file,) = (place / "out").glob("*.gguf")
    assert file.read_bytes() == (made[0] / "gguf" / file.name).read_bytes()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("room", ["100k", "500k", "580k"])
def test_a_real_disk_that_is_full(model, place, monkeypatch, room):
    """100 kB hold no tensors, 500 kB one artifact of the two, 580 kB all but the records."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this machine lets no file system be mounted")
    monkeypatch.setattr("phiquant.job.forecast.SPARE", -(10**6))
    try:
        ended = call("quantize", model, "--to", "gguf,mlx", "-o", place / "new" / "out", "-q")
        assert_refused(ended, 4, "filled up")
        assert files_in(place) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_limit_on_the_size_of_files(model, place):
    """EFBIG is no full disk: more room would not help."""
    resource = pytest.importorskip("resource")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = ("quantize", model, "-o", place / "out", "-q")
    ended = run(*command, preexec_fn=limit, environ={"NUMBA_DISABLE_JIT": "0"})
    assert_refused(ended, 2, "File too large")
    assert files_in(place) == []


OUT_OF_MEMORY = """
import re, resource
from pathlib import Path
import phiquant.job.streaming as streaming

def tight(shape, bands=streaming.core_bands, large=[]):
    if shape[0] < 10_000:
        return bands(shape)
    large.append(shape)
    if len(large) == 1:
        return bands(shape)
    used = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20),) * 2)
    return [(0, shape[0])]

streaming.core_bands = tight
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.usefixtures("made")  # compiling the kernels takes far more memory than running them
def test_memory_that_runs_out_in_the_middle(tmp_path, place):
    """At the second large tensor the process may have one megabyte more, and it needs thirty.

    All threads run by then: Python waits for ever for one that ends before it has begun.
    """
    model = tiny_model(tmp_path / "model", vocab_size=60_000)
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(OUT_OF_MEMORY)
    command = ("quantize", model, "--to", "gguf,mlx", "-o", place / "new" / "out", "--json", "-q")
    ended = run(*command, first_on_path=hooks)
    assert ended.code == json.loads(ended.out)["exit_code"] == 4, ended
    assert "memory" in ended.err
    assert "Traceback" not in ended.err
    assert files_in(place) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_memory_runs_out_in_many_words(monkeypatch, model, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("phiquant.cli.inspection.inspect", fail)
    assert_refused(call("inspect", model), 4, "memory")
