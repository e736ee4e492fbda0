"""Destinations appear whole or not at all."""

import errno
import subprocess
import sys

import numpy as np
import pytest

from phiquant.errors import DestinationError
from phiquant.host.lock import Lock
from phiquant.host.mapped import new_array, old_array
from phiquant.host.remains import remains_in, remove
from phiquant.host.rename import rename_new
from phiquant.host.staging import beside, check_destination, held, staged, staged_file, write_text
from phiquant.targets.streamed_file import StreamedFile


def everything_in(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_appears_whole(tmp_path):
    destination = tmp_path / "a" / "b" / "out"
    with held(destination) as place, staged(place) as scratch:
        (scratch / "file").write_text("x")
        assert not destination.exists()
        assert scratch.parent == destination.parent
    assert everything_in(tmp_path) == ["a", "a/b", "a/b/out", "a/b/out/file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing(tmp_path, error):
    with (
        pytest.raises(error),
        held(tmp_path / "a" / "out") as place,
        staged(place) as scratch,
    ):
        (scratch / "file").write_text("x")
        raise error
    assert everything_in(tmp_path) == []


def test_what_was_there_before_stays(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(RuntimeError), held(tmp_path / "a" / "out") as place, staged(place):
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
    made = pytest.raises(DestinationError, match="someone else")
    with made, held(destination) as place, staged(place):
        destination.mkdir()  # empty: POSIX's rename would replace it in silence
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


def test_a_destination_in_the_making_is_refused(tmp_path):
    with held(tmp_path / "out"):
        with pytest.raises(DestinationError, match="another phiquant"), held(tmp_path / "out"):
            pass
        with held(tmp_path / "other"):
            pass
    with held(tmp_path / "out"):
        pass
    assert everything_in(tmp_path) == []


def test_what_a_dead_job_left_goes_with_the_next(tmp_path):
    partial = beside(tmp_path / "out", "partial")
    partial.mkdir()
    (partial / "model.gguf").write_bytes(b"half")
    beside(tmp_path / "out", "lock").touch()  # which no one holds
    with held(tmp_path / "out") as place, staged(place) as scratch:
        assert everything_in(scratch) == []
        (scratch / "file").touch()
    assert everything_in(tmp_path) == ["out", "out/file"]


def test_a_file_appears_whole(tmp_path):
    with held(tmp_path / "m.dat") as place, staged_file(place) as new:
        new.write_bytes(b"x")
        assert not (tmp_path / "m.dat").exists()
    assert everything_in(tmp_path) == ["m.dat"]
    with pytest.raises(OSError), held(tmp_path / "n.dat") as place, staged_file(place) as new:
        new.write_bytes(b"x")
        raise OSError(errno.ENOSPC, "full")
    assert everything_in(tmp_path) == ["m.dat"]


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "a" * 181])
def test_a_long_name_has_short_names_beside_it(tmp_path, name):
    with held(tmp_path / name) as place, staged(place):
        pass
    write_text(tmp_path / name / ("ö" * 127), "text")
    assert len(everything_in(tmp_path)) == 2


def test_remains_of_the_dead_are_told_from_the_living(tmp_path):
    (tmp_path / ".dead.phiquant-partial").mkdir()
    (tmp_path / ".dead.phiquant-partial" / "file").write_bytes(bytes(5000))
    (tmp_path / ".dead.phiquant-journal").mkdir()
    (tmp_path / ".file.phiquant-new-0123").write_bytes(b"half")
    (tmp_path / ".mine.phiquant").touch()
    (tmp_path / ".mine.phiquant-other").touch()
    with held(tmp_path / "live") as place, staged(place):
        remains = {each.path.name: each for each in remains_in(tmp_path)}
        assert [name for name, each in remains.items() if each.alive] == [".live.phiquant-partial"]
        assert remains[".dead.phiquant-partial"].nbytes >= 5000
        assert remains[".dead.phiquant-journal"].resumable
        assert not remove(remains[".live.phiquant-partial"])
        for each in remains.values():
            if not each.alive:
                assert remove(each)
    assert everything_in(tmp_path) == [".mine.phiquant", ".mine.phiquant-other", "live"]


def test_a_lock_is_one_processs(tmp_path):
    program = (
        "import sys; from pathlib import Path; from phiquant.host.lock import Lock\n"
        "print(Lock.take(Path(sys.argv[1])) is None)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with Lock.take(tmp_path / "lock"):
        assert subprocess.check_output(command, text=True) == "True\n"
    assert subprocess.check_output(command, text=True) == "False\n"


def test_a_rename_replaces_nothing(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("empty", "broken"):
        with pytest.raises(FileExistsError):
            rename_new(tmp_path / "new", tmp_path / name)
    rename_new(tmp_path / "new", tmp_path / "fresh")
    assert everything_in(tmp_path) == ["broken", "empty", "fresh"]


def test_room_is_set_aside_before_an_array_is_mapped(tmp_path):
    array = new_array(tmp_path / "array", np.float32, (3, 5))
    array[:] = 7
    again = old_array(tmp_path / "array", np.float32, (3, 5))
    assert (again == 7).all()
    with pytest.raises(OSError) as caught:
        new_array(tmp_path / "large", np.float32, (1 << 40, 1 << 16))
    assert caught.value.errno in (errno.ENOSPC, errno.EFBIG)
    with pytest.raises((OSError, ValueError)):
        old_array(tmp_path / "array", np.float32, (30, 50))
