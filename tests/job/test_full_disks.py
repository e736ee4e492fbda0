"""Disks that fill, fail or may not be written to: a sentence, nothing half made, and it goes on.

Every disk that fills is a real one, a few hundred kilobytes in memory. The command believes that it
is large enough: what it expects to need beside the tensors is set to less than nothing.
"""

import errno
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

from command_line import files_in, tiny_model
from killing import Killing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SMALL = ("--calibration", "text.txt", "--calibration-size", "2x64")
COMMANDS = {
    "fast": ("--to", "gguf,mlx,onnx,openvino"),
    "matrix": ("--quality", "balanced", "--imatrix-out", "disk/matrix.gguf", *SMALL),
    "best": ("--to", "mlx", "--quality", "best", *SMALL),
}
BELIEVES = -(10**9)
ROOM = 16 << 20
"""Bytes in which everything fits, the journal too."""
SIZES = 3
"""Disks that are too small, of each command."""


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    directory = tmp_path_factory.mktemp("disks")
    tiny_model(directory / "model", hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    (directory / "text.txt").write_text("A text of few words, again and again. " * 40)
    (directory / "disk").mkdir()
    with Killing(directory) as server:
        small = ("--calibration", directory / "text.txt", "--calibration-size", "2x64")
        server.warm("quantize", directory / "model", "--to", "gguf,mlx,onnx,openvino")
        server.warm("quantize", directory / "model", "--to", "mlx", "--quality", "best", *small)
        yield server


def mount(directory, options):
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@contextmanager
def disk(killing, nbytes):
    """A disk of so many bytes in place of the directory `disk`."""
    place = killing.directory / "disk"
    if not mount(place, f"size={nbytes}"):
        pytest.skip("this machine lets no file system be mounted, which needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(autouse=True)
def place_is_empty(killing):
    yield
    empty(killing.directory / "disk")


def request(case):
    return ("quantize", "model", *COMMANDS[case], "-o", "disk/out", "-q")


def try_to(killing, case, **what):
    return killing.at_call(*request(case), **({"name": "fsync", "spare": BELIEVES} | what))


def made(place):
    """Path → hash of every file that is not hidden, but the records, which tell the time."""
    files = [path for path in sorted(place.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("phiquant.json", "README.md")
        and not path.relative_to(place).parts[0].startswith(".")
    }


def empty(place):
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def assert_told(killing, place, code, ended, *words):
    """The command ended with one sentence, and left nothing but a journal, which it named."""
    told = killing.log.read_text()
    assert ended is not None, "killed by a signal"
    assert ended[0] == code, told
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("phiquant: ")
    for word in words:
        assert word in last
    left = files_in(place)
    assert not (place / "out").exists()
    assert all(name.startswith(".out.phiquant-journal") for name in left), left
    assert not left or ".out.phiquant-journal" in last


@pytest.fixture(scope="module")
def whole(killing):
    """What every command makes on a disk with room, and how often it forces files to the disk."""
    place, hashes = killing.directory / "disk", {}
    for case in COMMANDS:
        ended = try_to(killing, case)
        assert ended[0] == 0, killing.log.read_text()
        hashes[case] = made(place), ended[1]
        empty(place)
    return hashes


@pytest.mark.parametrize("case", COMMANDS)
def test_a_disk_that_fills_and_is_given_room(killing, whole, case):
    expected, _ = whole[case]
    refused = 0
    with disk(killing, ROOM) as place:
        assert try_to(killing, case)[0] == 0
        used = shutil.disk_usage(place).used
    for nbytes in np.linspace(30_000, used, SIZES).astype(int):
        with disk(killing, nbytes) as place:
            ended = try_to(killing, case)
            if ended is not None and ended[0] == 0:  # it does with less than it had
                continue
            refused += 1
            assert_told(killing, place, 4, ended, "make room")
            assert mount(place, f"remount,size={ROOM}")
            assert try_to(killing, case)[0] == 0, killing.log.read_text()
            assert made(place) == expected, nbytes
            assert [name for name in files_in(place) if "phiquant-" in name] == []
    assert refused >= SIZES - 1


@pytest.mark.parametrize(
    "case, error",
    [("fast", errno.EIO), ("best", errno.EIO), ("matrix", errno.EDQUOT), ("best", errno.EDQUOT)],
)
def test_a_disk_that_fails_when_files_are_forced_to_it(killing, whole, case, error):
    """In the middle of these calls, or at the last before the destination appears."""
    expected, calls = whole[case]
    place = killing.directory / "disk"
    code, words = (2, os.strerror(errno.EIO)) if error == errno.EIO else (4, "make room")
    at = 1 + calls // 2
    if error == errno.EDQUOT:
        at = calls - 2  # of the last two, one comes after the destination has appeared
    ended = try_to(killing, case, at=at, error=error)
    assert_told(killing, place, code, ended, words)
    assert try_to(killing, case)[0] == 0
    assert made(place) == expected
    empty(place)


@pytest.mark.parametrize("case", ["fast", "best"])
def test_a_checkpoints_disk_that_fails(killing, whole, case):
    if not hasattr(os, "preadv"):
        pytest.skip("this system has no preadv")
    place = killing.directory / "disk"
    _, reads = try_to(killing, case, name="preadv")
    empty(place)
    ended = try_to(killing, case, name="preadv", at=reads * 3 // 4, error=errno.EIO)
    assert_told(killing, place, 2, ended, os.strerror(errno.EIO), "model.safetensors")
    assert try_to(killing, case)[0] == 0
    assert made(place) == whole[case][0]
    empty(place)


@pytest.mark.parametrize("case", ["fast", "best"])
def test_a_limit_on_the_size_of_files(killing, whole, case):
    place = killing.directory / "disk"
    ended = try_to(killing, case, limit=20_000)
    assert_told(killing, place, 2, ended, os.strerror(errno.EFBIG))
    assert try_to(killing, case)[0] == 0
    assert made(place) == whole[case][0]
    empty(place)


def test_a_disk_that_may_not_be_written_to(killing):
    with disk(killing, ROOM) as place:
        assert mount(place, "remount,ro")
        ended = killing.run(*request("fast"))
        assert_told(killing, place, 2, ended, "cannot write into", "disk")


def test_a_disk_without_room_for_names(killing, whole):
    with disk(killing, f"{ROOM},nr_inodes=6") as place:
        ended = try_to(killing, "fast")
        assert_told(killing, place, 4, ended, "make room")
        assert mount(place, "remount,nr_inodes=1000")
        assert try_to(killing, "fast")[0] == 0
        assert made(place) == whole["fast"][0]


def test_a_disk_of_temporary_files_that_is_full(killing, whole, tmp_path):
    with disk(killing, 8192) as small:
        (small / "filling").write_bytes(bytes(8192 - 4096))
        words = ("quantize", "model", *COMMANDS["fast"], "-o", tmp_path / "out", "-q")
        ended = killing.at_call(*words, name="fsync", temporary=str(small))
        if ended is None or ended[0]:  # some targets need such files, and some do not
            assert_told(killing, tmp_path, 4, ended, f"the disk at {small}", "TMPDIR")
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert killing.at_call(*words, name="fsync")[0] == 0
    assert made(tmp_path) == whole["fast"][0]
