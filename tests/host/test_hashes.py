"""Hashes equal the published ones, and hashing can be stopped."""

from threading import Event

import pytest

from phiquant.host.hashes import Stopped, hash_files, hash_opened
from phiquant.host.opened_file import OpenedFile


def test_published_vectors(tmp_path):
    # https://github.com/BLAKE3-team/BLAKE3/blob/master/test_vectors/test_vectors.json
    (tmp_path / "empty").touch()
    (tmp_path / "three").write_bytes(bytes([0, 1, 2]))
    assert hash_files([tmp_path / "empty", tmp_path / "three"]) == {
        "empty": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        "three": "e1be4d7a8ab5560aa4199eea339849ba8e293d55ca0a81006726d184519e647f",
    }


def test_large_files_are_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    (tmp_path / "b").write_bytes(bytes(3_000_001))
    hashes = hash_files([tmp_path / "a", tmp_path / "b"])
    assert hashes["a"] != hashes["b"]


def test_opened_files_hash_alike(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 5000)
    opened = [OpenedFile(tmp_path / "a")]
    assert hash_opened(opened) == hash_files([tmp_path / "a"]) == hash_files([tmp_path / "a"], 2)


def test_stops_when_asked(tmp_path):
    (tmp_path / "a").write_bytes(bytes(5))
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        hash_opened([OpenedFile(tmp_path / "a")], stop)
