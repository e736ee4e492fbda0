"""Reading at given places: what was opened, from any thread, or an error that says why not."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from phiquant.errors import CheckpointError, InputError
from phiquant.host.opened_file import OpenedFile


@pytest.fixture(params=["preadv", "seek and read"])
def way(request, monkeypatch):
    """Windows has the second alone."""
    if request.param == "seek and read":
        monkeypatch.delattr(os, "preadv", raising=False)
    elif not hasattr(os, "preadv"):
        pytest.skip("this system has no preadv")


@pytest.mark.usefixtures("way")
def test_threads_read_what_lies_at_their_places(tmp_path):
    content = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8)
    (tmp_path / "a").write_bytes(content.tobytes())
    file = OpenedFile(tmp_path / "a")
    assert file.nbytes == content.size
    places = [(at * 70_000, 65_000) for at in range(40)] + [(0, content.size), (7, 0)]

    def right(place):
        first, count = place
        return np.array_equal(file.read(first, count), content[first : first + count])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, places))


@pytest.mark.usefixtures("way")
def test_a_file_that_is_shortened(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1000))
    file = OpenedFile(tmp_path / "a", CheckpointError)
    os.truncate(tmp_path / "a", 300)
    assert file.read(0, 300).size == 300
    with pytest.raises(CheckpointError, match="ends at byte 300, expected 400: it was shortened"):
        file.read(200, 200)


def test_a_file_that_is_replaced_is_read_on(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    file = OpenedFile(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"new")
    try:
        (tmp_path / "b").replace(tmp_path / "a")
    except PermissionError:
        pytest.skip("this system replaces no file that is open")
    assert file.read(0, 3).tobytes() == b"old"


def test_a_disk_that_fails_is_told_with_the_file(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(10))
    file = OpenedFile(tmp_path / "a")

    def fail(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(file, "_read_some", fail)
    with pytest.raises(OSError, match="Input/output error") as raised:
        file.read(0, 10)
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, str(tmp_path / "a"))
    assert not isinstance(raised.value, InputError)
