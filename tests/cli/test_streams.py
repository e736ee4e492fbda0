"""What goes to stdout and what to stderr: one JSON document, plain or moving progress, pipes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import COMMAND, call, contained, environment, run
from phiquant.cli.progress import PlainLines, describe, shown
from phiquant.progress import Progress

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs POSIX pipes and terminals")


def test_help_imports_nothing_heavy():
    """A proxy for starting in a blink that a busy machine does not disturb."""
    script = (
        "import sys\n"
        "from phiquant.cli.main import main\n"
        "sys.argv = ['phiquant', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as ended:\n    assert not ended.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert "quantize" in done.stdout
    packages = {name.partition(".")[0] for name in done.stderr.split()}
    assert "typer" in packages
    heavy = {"numpy", "numba", "llvmlite", "rich", "tokenizers", "safetensors", "gguf", "mlx"}
    assert not packages & (heavy | {"llama_cpp", "huggingface_hub", "torch", "transformers"})


def test_json_is_one_document_and_nothing_else(model, tmp_path):
    ended = run("quantize", model, "--to", "gguf,mlx", "-o", tmp_path / "out", "--json")
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)["artifacts"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ("quantize", "{model}", "-o", "{model}"),
        ("quantize", "{model}", "-o", "new", "--precision", "int5"),
        ("quantize", "{model}"),
        ("quantize",),
        ("quantize", "{model}", "-o", "new", "--context", "many"),
        ("inspect", "/nowhere/at/all"),
        ("inspect",),
        ("verify", "/nowhere", "--against", "{model}"),
        ("verify", "/nowhere", "--against", "{model}", "--max-kl", "x"),
        ("demo", "--wheel", "/nowhere.whl"),
        ("demo", "--no-such-option"),
        ("no-such-command",),
    ],
)
def test_json_on_errors_too(model, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    ended = call(*(word.format(model=model) for word in words), "--json")
    document = json.loads(ended.out)
    assert ended.code == document["exit_code"] == 2
    assert document["error"]
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_bug_is_called_one(monkeypatch, model):
    def fail(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("phiquant.cli.inspection.inspect", fail)
    ended = call("inspect", model, "--json")
    assert ended.code == json.loads(ended.out)["exit_code"] == 1
    assert "bug in phiquant: ZeroDivisionError: ours" in ended.err
    monkeypatch.setenv("PHIQUANT_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        call("inspect", model)


def test_progress_is_plain_lines_when_piped(model, tmp_path):
    ended = run("quantize", model, "-o", tmp_path / "out")
    assert ended.code == 0
    assert "MB/s" not in ended.out
    assert "\x1b" not in ended.err + ended.out
    bytewise = r"(checking|quantizing): \d+%, [\d.e+]+ MB/s, [\d.]+ s(| left)"
    line = re.compile(bytewise + r"|calibrating: 100%, [\d.e+]+ sequences/s, [\d.]+ s")
    lines = ended.err.splitlines()
    assert all(line.fullmatch(each) for each in lines), lines
    done = [each.split(":")[0] for each in lines if "100%" in each]
    assert done == ["checking", "calibrating", "quantizing"]


def test_progress_can_be_left_out(model, tmp_path):
    ended = call("quantize", model, "-o", tmp_path / "out", "--quiet")
    assert (ended.code, ended.err) == (0, "")


def test_a_line_of_progress():
    assert describe(Progress("quantizing", 250_000_000, 10**9), 2.0) == (
        "quantizing: 25%, 125 MB/s, 6 s left"
    )
    assert (
        describe(Progress("runtime", 4, 4, "windows"), 2.0) == "runtime: 100%, 2 windows/s, 2.0 s"
    )
    assert describe(Progress("quantizing", 0, 0), 0.001) == "quantizing: 0%, 0 MB/s, 0.0 s"
    assert describe(Progress("quantizing", 0, 10), 7.0) == "quantizing: 0%, 0 MB/s, just begun"


def test_plain_lines_are_few(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("phiquant.cli.progress.time.monotonic", lambda: next(clock))
    lines = PlainLines()
    for stage in ("checking", "quantizing"):
        for done in range(1, 21):
            lines(Progress(stage, done * 10**6, 20 * 10**6))
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in told] == [
        "checking: 30%", "checking: 55%", "checking: 80%", "checking: 100%",
        "quantizing: 30%", "quantizing: 55%", "quantizing: 80%", "quantizing: 100%",
    ]  # fmt: skip
    assert told[0] == "checking: 30%, 1 MB/s, 14 s left"


@POSIX
@pytest.mark.parametrize("options", [("--tensors",), ("--json",)])
def test_a_reader_that_goes_away_is_no_error(made, options):
    """`phiquant inspect ... | head -1`, with a pipe that is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "inspect", str(made[0] / "mlx"), *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@POSIX
def test_a_failed_verification_fails_without_a_reader_too(made, model, tmp_path):
    text = tmp_path / "text"
    text.write_text("The quick brown fox. " * 9)
    reading, writing = os.pipe()
    os.close(reading)
    artifact = shutil.copytree(made[0] / "gguf", tmp_path / "gguf")  # its record changes
    words = ["verify", artifact, "--against", model, "--text", text, "--max-kl", "1e-9"]
    done = subprocess.run(
        [*COMMAND, *map(str, words), "-q"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        check=False,
    )
    os.close(writing)
    assert done.returncode == 3
    assert "divergence" in done.stderr


@POSIX
def test_progress_that_no_one_reads_does_not_end_the_work(model, tmp_path):
    """`phiquant quantize ... 2>&1 | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "quantize", str(model), "-o", str(tmp_path / "out")],
        stdout=writing,
        stderr=writing,
        env=environment(),
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "out" / "phiquant.json").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_results_on_a_full_disk(model):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "inspect", str(model)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "phiquant: the disk is full; make room and try again\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_an_output_that_knows_few_characters(made, encoding):
    ended = run("inspect", made[0] / "mlx", environ={"PYTHONIOENCODING": encoding})
    assert (ended.code, ended.err) == (0, "")
    assert "4bit-g64" in ended.out


def on_a_terminal(words, **changes):
    """Run a command whose stderr is a pseudo-terminal; what it wrote there, and its exit code."""
    import pty

    main, side = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=side,
        env=environment(TERM="xterm-256color", COLUMNS="120", LINES="30", **changes),
    )
    os.close(side)
    written = b""
    with contained(process):
        while True:
            try:
                data = os.read(main, 1 << 16)
            except OSError:  # Linux: the other end is closed
                break
            if not data:
                break
            written += data
        code = process.wait()
    os.close(main)
    return written.decode(), code


@POSIX
def test_progress_moves_on_a_terminal(model, tmp_path):
    written, code = on_a_terminal(["quantize", model, "-o", tmp_path / "out"])
    assert code == 0
    assert "\x1b[" in written
    assert "quantizing" in written
    assert re.search(r"[\d.]+ [kMG]?B/s|[\d.]+ bytes/s", written)
    assert re.search(r"\d:\d\d:\d\d", written), "time left"
    assert "100%" in written


@POSIX
def test_a_stage_that_comes_again_is_shown_again(monkeypatch):
    """As in the demo, which quantizes and verifies in turn."""
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    with shown(True) as listen:
        for stage, unit in (("checking", "B"), ("runtime", "windows"), ("checking", "B")):
            before = len(terminal.getvalue())
            listen(Progress(stage, 3, 8, unit))
            assert stage in terminal.getvalue()[before:]
