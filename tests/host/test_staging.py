"""Destinations appear whole or not at all."""

import errno

import numpy as np
import pytest

from phiquant.errors import DestinationError
from phiquant.host.staging import check_destination, staged, write_text
from phiquant.targets.streamed_file import StreamedFile


def everything_in(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_appears_whole(tmp_path):
    destination = tmp_path / "a" / "b" / "out"
    with staged(destination) as scratch:
        (scratch / "file").write_text("x")
        assert not destination.exists()
        assert scratch.parent == destination.parent
    assert everything_in(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path, error):
    with pytest.raises(error), staged(tmp_path / "a" / "out") as scratch:
        (scratch / "file").write_text("x")
        raise error
    assert everything_in(tmp_path) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(RuntimeError), staged(tmp_path / "a" / "out"):
        raise RuntimeError
    assert everything_in(tmp_path) == ["a", "a/mine"]


def test_an_existing_destination_is_refused(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    for name in ("link", "directory", "file"):
        with pytest.raises(DestinationError, match="exists already"):
            check_destination(tmp_path / name)
    with pytest.raises(DestinationError, match="cannot write into"):
        check_destination(tmp_path / "file" / "out")


def test_a_destination_made_meanwhile_is_kept(tmp_path):
    destination = tmp_path / "out"
    with pytest.raises(DestinationError, match="someone else"), staged(destination):
        destination.mkdir()
    assert everything_in(tmp_path) == ["out"]


def test_text_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "one")
    write_text(path, "zwei ü")
    assert path.read_text(encoding="utf-8") == "zwei ü"
    assert everything_in(tmp_path) == ["file"]


def test_a_streamed_file_takes_bands_in_any_order(tmp_path):
    values = np.arange(60, dtype=np.uint16).reshape(6, 10)
    with StreamedFile(tmp_path / "file", b"head", 4 + values.nbytes) as file:
        file.put(4 + 80, values[4:])
        file.put(4 + 20, values[1:4, ::1])
        file.put(4, values[:1])
    assert (tmp_path / "file").read_bytes() == b"head" + values.tobytes()


def test_a_disk_too_small_shows_at_once(tmp_path):
    with pytest.raises(OSError) as caught:
        StreamedFile(tmp_path / "file", b"", 1 << 60)
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
