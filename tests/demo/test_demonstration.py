"""`phiquant demo` from end to end, with a tiny model in the place of the real one."""

import json

import pytest

from command_line import call, files_in, tiny_model
from phiquant.demo import demonstration
from phiquant.targets.table import MODULES


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The demo over a tiny model and one precision; returns what stands for the wheel."""

    def build(wheel, directory, *, untied=False, plain=False):
        return tiny_model(directory)

    monkeypatch.setattr(demonstration, "build", build)
    monkeypatch.setattr(demonstration, "PRECISIONS", ("int8",))
    wheel = tmp_path / "any.whl"
    wheel.touch()
    return wheel


def test_every_path_that_it_names_is_there(tiny, tmp_path):
    output = tmp_path / "new" / "out"
    ended = call("demo", "--wheel", tiny, "-o", output, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["rescaling"]["mean"]["value"] == 0
    assert [one["target"] for one in document["artifacts"]] == list(MODULES)
    for one in document["artifacts"]:
        assert one["path"] == str(output / "int8" / one["target"])
        assert call("inspect", one["path"]).code == 0
        assert one["verification"]["passed"]
    assert sorted(path.name for path in output.iterdir()) == [
        "SmolLM2-135M-Instruct-as-Phi-3",
        "int8",
    ]


def test_a_failure_leaves_nothing(tiny, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "verify", fail)
    ended = call("demo", "--wheel", tiny, "-o", tmp_path / "new" / "out", "-q")
    assert ended.code == 130
    assert files_in(tmp_path) == ["any.whl"]
