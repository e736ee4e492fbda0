"""`phiquant --version`."""

import phiquant
from command_line import call, run


def test_the_version_alone_is_printed():
    for by in (call, run):
        ended = by("--version")
        assert (ended.code, ended.out, ended.err) == (0, f"phiquant {phiquant.__version__}\n", "")


def test_it_is_told_in_the_help():
    assert "--version" in call("--help").out
