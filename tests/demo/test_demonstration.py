"""`phiquant demo` from end to end, with a tiny model in the place of the real one."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_line import assert_refused, call, environment, files_in, tiny_model
from phiquant.cli.demo_advice import own_phi
from phiquant.cli.run_line import in_full, run_line
from phiquant.demo import demonstration, kernels
from phiquant.phi.checkpoint import Checkpoint
from phiquant.targets.table import MODULES, target

NAME = "SmolLM2-135M-Instruct-as-Phi-3"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The demo over a tiny model, at two precisions and over one window; yields the wheel's
    stand-in.
    """
    place = tmp_path_factory.mktemp("wheel")
    wheel = place / "any.whl"
    wheel.touch()
    model = tiny_model(place / "model")

    def write(unpacked, directory, variant):
        assert variant == "moved"
        return shutil.copytree(unpacked.directory, directory)

    @contextmanager
    def compiled():
        yield lambda: None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demonstration, "unpack", lambda wheel: Checkpoint.open(model))
        patch.setattr(demonstration, "write", write)
        patch.setattr(demonstration, "compiled_behind", compiled)
        patch.setattr(demonstration, "ORDER", ("fp16", "int8"))
        patch.setattr(demonstration, "WINDOWS", {"fp16": 1, "int8": 2})
        yield wheel


@pytest.fixture(scope="module")
def shown(tiny, tmp_path_factory):
    """Where the demo's artifacts went, and what it printed for people into a pipe."""
    output = tmp_path_factory.mktemp("demo") / "new" / "out"
    ended = call("demo", "--wheel", tiny, "-o", output)
    assert ended.code == 0, ended.err
    return output, ended.out


def test_a_line_a_row_in_the_order_of_making(shown):
    _, printed = shown
    heading, *lines = printed.partition("\n\n")[0].splitlines()
    assert heading.split()[:3] == ["runtime", "precision", "type"]
    assert [tuple(line.split()[:2]) for line in lines] == [
        (name, precision) for precision in ("FP16", "INT8") for name in MODULES
    ]
    assert {len(line) for line in lines} == {len(heading)}
    for line in lines:
        assert re.search(r"( 0| ± [\d.e-]+) +[\d.]+ % +[\d.]+$", line), line


def test_it_says_over_how_many_positions(shown):
    _, printed = shown
    words = " ".join(printed.split())
    assert "512 positions for INT8, 256 positions for FP16" in words
    assert "as published: between the two is a KL divergence of 0, over 256 positions" in words


def test_it_says_which_file_to_take(shown):
    output, printed = shown
    taken = re.search(r"^Take (\S+): ", printed, re.MULTILINE)
    assert taken
    assert Path(taken[1]).parent == output / "int8"


@pytest.mark.parametrize("name", MODULES)
def test_every_line_that_it_gives_runs(shown, name):
    output, printed = shown
    line = run_line(output / "int8" / name, name)
    assert f"\n{line}\n" in printed
    ended = shell(line)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()


@pytest.mark.long
def test_the_lines_for_an_own_model_run(shown, tmp_path):
    if shutil.which("phiquant", path=Path(sys.executable).parent) is None:
        pytest.skip("phiquant is not installed as a program")
    output, printed = shown
    named = own_phi("microsoft/Phi-4-mini-instruct")
    assert "\n".join(named) in printed
    for line in own_phi(str(output / NAME)):
        ended = shell(line, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr


def shell(line, **options):
    return subprocess.run(
        line, shell=True, capture_output=True, text=True, env=environment(), check=False, **options
    )


def test_programs_are_named_in_full_unless_the_path_leads_to_them(monkeypatch):
    folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.defpath)
    assert in_full("python -c 1") == f"{sys.executable} -c 1"
    assert in_full("no-such-program -x") == "no-such-program -x"
    if (folder / "python").absolute() == Path(sys.executable).absolute():
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")
        assert in_full("python -c 1") == "python -c 1"


FEW = ("gguf", "onnx")


def few(monkeypatch):
    """The demo for two runtimes, whose processes start soonest."""
    chosen = [target(name) for name in FEW]
    monkeypatch.setattr(demonstration, "targets", lambda: chosen)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_table_grows(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    rows = []
    note = demonstration.record_verification

    def seen(path, verification):
        """Before the next row is known, those so far have been drawn."""
        rows.append(sum(name in sys.stderr.getvalue() for name in FEW))
        note(path, verification)

    few(monkeypatch)
    monkeypatch.setattr(demonstration, "record_verification", seen)
    monkeypatch.setattr(demonstration, "ORDER", ("int8",))
    monkeypatch.setattr(demonstration, "WINDOWS", {"int8": 1})
    monkeypatch.chdir(tmp_path)
    ended = call("demo", "--wheel", tiny, "-o", "out", stream=Terminal)
    assert ended.code == 0, ended.err
    assert rows == list(range(len(FEW)))
    assert ended.out.count("KL divergence") == 2, "once above the figures, once below"
    assert [ended.out.count(f"│ {name} ") for name in FEW] == [1] * len(FEW)
    assert "Take out/int8/" in ended.out


def test_every_path_that_it_names_is_there(tiny, tmp_path, monkeypatch):
    few(monkeypatch)
    monkeypatch.setattr(demonstration, "ORDER", ("int8",))
    output = tmp_path / "new" / "out"
    ended = call("demo", "--wheel", tiny, "-o", output, "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["moved"]["mean"]["value"] == 0
    assert 0 < document["seconds"]["first"] < document["seconds"]["all"]
    places = [(one["precision"], one["target"]) for one in document["artifacts"]]
    assert places == [("int8", name) for name in FEW]
    for one in document["artifacts"]:
        assert one["path"] == str(output / one["precision"] / one["target"])
        assert call("inspect", one["path"]).code == 0
        assert one["verification"]["passed"]
    assert sorted(path.name for path in output.iterdir()) == [NAME, "int8"]


def test_a_failure_leaves_nothing(tiny, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "verify", fail)
    ended = call("demo", "--wheel", tiny, "-o", tmp_path / "new" / "out", "-q")
    assert ended.code == 130
    assert ended.out == ""
    assert files_in(tmp_path) == []


def test_a_destination_that_is_there_costs_no_download(tmp_path, monkeypatch):
    monkeypatch.setenv("PHIQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    ended = call("demo", "-o", tmp_path)
    assert_refused(ended, 2, str(tmp_path), "exists already")
    assert files_in(tmp_path) == []


def test_kernels_are_compiled_for_every_grid(monkeypatch):
    """They are compiled by being used."""
    used = []

    def grid(name):
        return SimpleNamespace(
            encode=lambda rows: used.append((name, rows.shape)) or {"codes": rows},
            decode=lambda parts, columns: used.append((name, (*parts, columns))),
        )

    names = [["a", "b"], ["c"]]
    fakes = [SimpleNamespace(grids={name: grid(name) for name in few}) for few in names]
    monkeypatch.setattr(kernels, "targets", lambda: fakes)
    kernels.compile_kernels()
    each = [(8, 1024), ("codes", 1024)]
    assert used == [(name, what) for name in "abc" for what in each]


def test_the_process_that_compiles_ends_with_the_demo(monkeypatch):
    started = []
    start = subprocess.Popen

    def record(*words, **options):
        started.append(start(*words, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", record)
    with pytest.raises(KeyboardInterrupt), kernels.compiled_behind():
        raise KeyboardInterrupt
    (process,) = started
    assert process.returncode is not None
