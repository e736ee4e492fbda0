"""`phiquant clean`: what it lists, removes and leaves."""

import json

from command_line import assert_refused, call, files_in


def leave(directory):
    (directory / ".out.phiquant-partial").mkdir()
    (directory / ".out.phiquant-partial" / "model.gguf").write_bytes(bytes(4096))
    (directory / ".out.phiquant-journal").mkdir()
    (directory / ".out.phiquant-lock").touch()
    (directory / "out").mkdir()


def test_nothing_to_clean(tmp_path):
    ended = call("clean", tmp_path)
    assert ended.code == 0
    assert "No job left anything" in ended.out


def test_a_dry_run_removes_nothing(tmp_path):
    leave(tmp_path)
    before = files_in(tmp_path)
    ended = call("clean", tmp_path, "--dry-run", "--json")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert {each["fate"] for each in document["remains"]} == {"would be removed"}
    assert document["bytes_removed"] == 0
    assert files_in(tmp_path) == before


def test_what_the_dead_left_is_removed(tmp_path):
    leave(tmp_path)
    ended = call("clean", tmp_path)
    assert ended.code == 0
    assert ".out.phiquant-partial" in ended.out
    assert files_in(tmp_path) == ["out"]


def test_journals_can_be_kept(tmp_path):
    leave(tmp_path)
    assert call("clean", tmp_path, "--keep-journals").code == 0
    assert files_in(tmp_path) == [".out.phiquant-journal", "out"]


def test_no_directory(tmp_path):
    assert_refused(call("clean", tmp_path / "none"), 2, "none")
