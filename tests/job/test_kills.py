"""SIGKILL at any instant loses nothing: the destination is absent or whole, and work goes on."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from command_line import files_in, tiny_model
from killing import Killing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

COMMANDS = {
    "gguf": ("--to", "gguf"),
    "mlx and onnx": ("--to", "mlx,onnx", "--precision", "int8"),
    "openvino": ("--to", "openvino"),
    "a matrix too": ("--quality", "balanced", "--imatrix-out", "matrix.gguf"),
    "best": ("--to", "mlx", "--quality", "best"),
}
SMALL = ("--calibration", "text.txt", "--calibration-size", "2x48")
KILLS = 4
"""Of each command; the long test has more."""
MADE = ("out", "matrix.gguf")


@pytest.fixture(scope="module")
def killing(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kills")
    tiny_model(directory / "model", hidden_size=64, intermediate_size=96, num_hidden_layers=3)
    (directory / "text.txt").write_text("A text of few words, again and again. " * 40)
    with Killing(directory) as server:
        small = ("--calibration", directory / "text.txt", "--calibration-size", "2x48")
        server.warm("quantize", directory / "model", "--to", "gguf,mlx,onnx,openvino")
        server.warm("quantize", directory / "model", "--to", "mlx", "--quality", "best", *small)
        yield server


def contents(directory):
    """Path → hash of every file that was made, but the records, which tell the time."""
    hashes = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in ("phiquant.json", "README.md"):
            name = str(path.relative_to(directory))
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashes


def made(killing):
    """What the command left under its own names, with hashes."""
    whole = {}
    for name in MADE:
        path = killing.directory / name
        if path.is_file():
            whole[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.exists():
            whole |= {f"{name}/{inner}": digest for inner, digest in contents(path).items()}
            assert (path / "phiquant.json").exists() or any(path.glob("*/phiquant.json"))
    return whole


def remove(killing):
    for name in MADE:
        path = killing.directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def request(case):
    size = SMALL if "--quality" in COMMANDS[case] else ()
    return ("quantize", "model", *COMMANDS[case], *size, "-o", "out", "-q")


def survive(killing, case, count, random):
    """Kill the command `count` times, and let it go on each time; how often it was killed."""
    command = request(case)
    code, changes = killing.run(*command)
    assert code == 0, killing.log.read_text()
    whole = made(killing)
    remove(killing)
    at = sorted(int(x) for x in np.linspace(1, changes, count) + random.uniform(-2, 2, count))
    killed = 0
    for number in at:
        ended = killing.run(*command, kill_at=max(1, min(number, changes)))
        killed += ended is None
        left = made(killing)
        # An artifact and an importance matrix are two destinations, each whole or absent.
        assert left.items() <= whole.items(), (case, number)
        if ended is not None:
            assert ended[0] == 0
        if any(name.startswith("out") for name in left):
            remove(killing)  # it was done but for its cleaning up
        code, _ = killing.run(*command)
        assert code == 0, (case, number, killing.log.read_text())
        assert made(killing) == whole, (case, number)
        remove(killing)
        killing.run("clean", ".")
        assert [name for name in files_in(killing.directory) if "phiquant-" in name] == []
    return killed


@pytest.mark.parametrize("case", COMMANDS)
def test_a_kill_at_any_change_to_the_file_system_loses_nothing(killing, case):
    survive(killing, case, KILLS, np.random.default_rng(sum(map(ord, case))))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", COMMANDS)
def test_a_hundred_kills(killing, case):
    assert survive(killing, case, 100, np.random.default_rng(1)) == 100


def test_a_killed_calibration_goes_on_at_its_block(killing):
    """The journal of the real command is read again, and nothing that it has is done twice."""
    command = request("best")
    code, changes = killing.run(*command)
    assert code == 0
    whole = made(killing)
    remove(killing)
    killing.run(*command, kill_at=changes * 3 // 4)
    journal = killing.directory / ".out.phiquant-journal" / "journal.json"
    assert '"done": 3' in journal.read_text() or '"done": 2' in journal.read_text()
    code, again = killing.run(*command)
    assert (code, made(killing)) == (0, whole)
    assert again < changes * 0.8  # what was done was not done again
    remove(killing)


def test_what_a_power_cut_spoils_is_done_again(killing):
    """Of the arrays that the journal names some are zeroed, some cut short, and some gone."""
    command = request("best")
    code, changes = killing.run(*command)
    assert code == 0
    whole = made(killing)
    remove(killing)
    killing.run(*command, kill_at=changes * 3 // 4)
    journal = killing.directory / ".out.phiquant-journal"
    arrays = sorted(path for path in journal.iterdir() if path.name.startswith(("gguf.", "mlx.")))
    assert len(arrays) >= 3
    for number, path in enumerate(arrays):
        if number % 3 == 0:
            path.write_bytes(bytes(path.stat().st_size))
        elif number % 3 == 1:
            path.write_bytes(path.read_bytes()[:100])
        else:
            path.unlink()
    code, _ = killing.run(*command)
    assert code == 0, killing.log.read_text()
    assert made(killing) == whole
    remove(killing)


def test_another_configuration_does_not_go_on_with_the_journal(killing):
    command = request("best")
    _, changes = killing.run(*command)
    remove(killing)
    killing.run(*command, kill_at=changes * 3 // 4)
    config = killing.directory / "model" / "config.json"
    before = config.read_text()
    try:
        config.write_text(before.replace('"rope_theta": 10000.0', '"rope_theta": 500.0'))
        assert config.read_text() != before
        assert killing.run(*command)[0] == 0
        gone_on = made(killing)
        remove(killing)
        assert killing.run(*command)[0] == 0
        assert made(killing) == gone_on
    finally:
        config.write_text(before)
        remove(killing)
