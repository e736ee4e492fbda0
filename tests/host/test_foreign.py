"""Files by other hands: what is opened, and what is not."""

import os
import socket
from pathlib import Path

import pytest

from phiquant.errors import ConfigError, InputError
from phiquant.host import foreign
from phiquant.host.foreign import FileKind

VERSION = Path("/proc/version")
KIND = FileKind(10, ConfigError)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert foreign.read_bytes(path, KIND, tmp_path) == b"0123456789"
    assert foreign.read_text(path, KIND) == "0123456789"
    assert foreign.check_file(path, KIND) == 10


def test_a_file_one_byte_too_long(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789a")
    with pytest.raises(ConfigError, match="has 11 bytes, and a file of its kind at most 10"):
        foreign.read_bytes(path, KIND)


@pytest.mark.skipif(not VERSION.exists(), reason="needs a file that states no size")
def test_a_file_that_states_no_size(tmp_path):
    with pytest.raises(ConfigError, match="at most 10"):
        foreign.read_bytes(VERSION, KIND)


def test_what_is_no_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="found a directory"):
        foreign.read_bytes(tmp_path / "folder", KIND)
    with pytest.raises(ConfigError, match="No such file"):
        foreign.read_bytes(tmp_path / "absent", KIND)
    with pytest.raises(ConfigError, match="null character"):
        foreign.read_bytes(tmp_path / "a\0b", KIND)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_and_a_socket_and_a_device(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="found a named pipe"):
        foreign.read_bytes(tmp_path / "pipe", KIND)
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(ConfigError, match=r"socket|No such device"):
            foreign.read_bytes(tmp_path / "socket", KIND)
    with pytest.raises(ConfigError, match="found a device"):
        foreign.read_bytes(Path("/dev/null"), KIND)


def test_links_within_a_directory_and_out_of_it(tmp_path):
    home = tmp_path / "model"
    (home / "inner").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (home / "file").write_text("own")
    (home / "inner" / "link").symlink_to("../file")
    (home / "stray").symlink_to("../outside")
    (home / "folder").symlink_to("..")
    assert foreign.read_text(home / "inner" / "link", KIND, home) == "own"
    for path in (home / "stray", home / "folder" / "outside"):
        with pytest.raises(ConfigError, match=r"outside of the model's directory"):
            foreign.read_text(path, KIND, home)
        assert foreign.read_text(path, KIND) == "secret"  # a person named it


def test_a_directory_that_is_a_link_itself(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("own")
    (tmp_path / "link").symlink_to("real")
    assert foreign.read_text(tmp_path / "link" / "file", KIND, tmp_path / "link") == "own"


def snapshot(tmp_path, model="models--org--name"):
    """A model in the layout of the hub's cache, with a folder in it; its file leads to a blob."""
    folder = tmp_path / model
    home = folder / "snapshots" / "0123"
    (home / "cpu").mkdir(parents=True)
    (folder / "blobs").mkdir()
    (folder / "blobs" / "4567").write_text("blob")
    (home / "file").symlink_to("../../blobs/4567")
    (home / "cpu" / "file").symlink_to("../../../blobs/4567")
    return home


def test_links_in_the_hubs_cache(tmp_path):
    home = snapshot(tmp_path)
    assert foreign.read_text(home / "file", KIND, home) == "blob"
    assert foreign.read_text(home / "cpu" / "file", KIND, home) == "blob"
    assert foreign.read_text(home / "cpu" / "file", KIND, home / "cpu") == "blob"
    foreign.check_directory(home, ConfigError)
    other = snapshot(tmp_path, "models--org--other")
    (other / "theirs").symlink_to(home.parent.parent / "blobs" / "4567")
    with pytest.raises(ConfigError, match="outside"):
        foreign.read_text(other / "theirs", KIND, other)


def test_a_layout_that_is_like_the_hubs(tmp_path):
    home = snapshot(tmp_path, "mine")
    with pytest.raises(ConfigError, match="outside"):
        foreign.read_text(home / "file", KIND, home)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_directory_for_a_runtime(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    foreign.check_directory(tmp_path, InputError)
    (tmp_path / "folder" / "link").symlink_to("nowhere")
    with pytest.raises(InputError, match="a link to nothing"):
        foreign.check_directory(tmp_path, InputError)
    (tmp_path / "folder" / "link").unlink()
    os.mkfifo(tmp_path / "folder" / "pipe")
    with pytest.raises(InputError, match="a named pipe"):
        foreign.check_directory(tmp_path, InputError)
    monkeypatch.setattr(foreign, "MOST_ENTRIES", 2)
    (tmp_path / "folder" / "pipe").unlink()
    (tmp_path / "more").touch()
    with pytest.raises(InputError, match="more than 2 files"):
        foreign.check_directory(tmp_path, InputError)


def test_text_and_objects(tmp_path):
    path = tmp_path / "file"
    for data, words in (
        (b"\xff", "UTF-8 text in .*file, found other bytes at 0"),
        (b"[1]", "should hold a JSON object, found a list; so do"),
        (b"{", "is not valid JSON .*; so do"),
    ):
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=words):
            foreign.read_object(path, KIND, tmp_path, "so do")
    path.write_bytes(b'{"a": 1}')
    assert foreign.read_object(path, KIND) == {"a": 1}


@pytest.mark.parametrize("word", ["a", "a.b", "...", "a b", "-"])
def test_plain_names(word):
    assert foreign.is_plain_name(word)


@pytest.mark.parametrize("word", ["", ".", "..", "/", "a/b", "../a", "/a", "a\0", "a/"])
def test_names_that_lead_elsewhere(word):
    assert not foreign.is_plain_name(word)
