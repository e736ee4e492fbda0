"""The flow of `benchmarks/speed.py`, with contenders of a few lines in place of real tools."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
MODULES = ("speed", "contenders", "machine", "memory", "tables", "verdict", "checkpoints")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures through /proc")

TOOL = """
import pathlib, sys
output, intermediate = pathlib.Path(sys.argv[1]), int(sys.argv[2])
(output.parent / "temporary").resolve(strict=True)
(output.parent / "intermediate").write_bytes(bytes(intermediate))
output.mkdir()
(output / "model").write_bytes(bytes(1000))
"""


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import checkpoints
    import contenders
    import speed

    names = ("peer-gguf", "ours-gguf", "peer-mlx", "ours-mlx", "peer-onnx", "ours-onnx")
    names += ("peer-openvino", "ours-openvino", "ours-both")

    def fake(name: str):
        intermediate = 50_000_000 if name == "peer-gguf" else 0

        def command(task):
            return [sys.executable, "-c", TOOL, task.output, str(intermediate)]

        def checks(task):
            return [[sys.executable, "-c", f"import os; os.stat('{task.output}/model'); print(0)"]]

        return contenders.Contender(name, name, command, checks)

    monkeypatch.setattr(speed, "CONTENDERS", tuple(map(fake, names)))
    monkeypatch.setattr(speed, "TITLES", {name: name for name in names})
    monkeypatch.setattr(speed, "time_start_up", lambda: 0.1)
    monkeypatch.setattr(speed.os, "sync", lambda: None)

    def make(directory: Path, layers: int, peers: Path) -> None:
        directory.mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(bytes(100 * layers))

    monkeypatch.setattr(checkpoints, "phi4_mini_shaped", make)
    yield speed
    for name in MODULES:
        sys.modules.pop(name, None)


def run(speed, monkeypatch: pytest.MonkeyPatch, work: Path, *more: str) -> tuple[object, dict]:
    options = ["--peers", sys.executable, "--work", work, "--results", work / "results", *more]
    monkeypatch.setattr(sys, "argv", ["speed.py", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        speed.main()
    return ended.value.code, json.loads((work / "results" / "speed.json").read_text())


def test_a_whole_benchmark_leaves_only_its_checkpoints(speed, monkeypatch, tmp_path):
    code, report = run(speed, monkeypatch, tmp_path, "--rounds", "2", "--layers", "3")
    verdicts = [row["passed"] for row in report["rows"]]
    assert None not in verdicts
    assert verdicts[5:] == [True] * 3  # the first five are of seconds
    assert code == (0 if all(verdicts) else 1)
    assert [entry["contender"] for entry in report["runs"]][:10] == [
        "peer-gguf",
        "ours-gguf",
        "peer-mlx",
        "ours-mlx",
        "peer-onnx",
        "ours-onnx",
        "peer-openvino",
        "ours-openvino",
        "ours-both",
        "peer-gguf",
    ]
    assert report["runs"][0]["intermediate_bytes"] == 50_000_000
    assert report["runs"][0]["output_bytes"] == 1000
    assert report["checkpoint"] == {"layers": 3, "bytes": 300}
    assert not (tmp_path / "run").exists()
    assert "| GGUF Q4_K_M, wall |" in (tmp_path / "results" / "speed.md").read_text()


def test_a_missed_bar_is_an_exit_code(speed, monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "time_start_up", lambda: 0.4)
    code, report = run(speed, monkeypatch, tmp_path, "--layers", "1", "--only", "ours-mlx")
    assert code == 1
    assert [row["passed"] for row in report["rows"]] == [*[None] * 5, True, True, False]


def test_an_output_that_does_not_load_ends_it(speed, monkeypatch, tmp_path):
    (peer, *others) = speed.CONTENDERS
    broken = speed.Contender(
        peer.name,
        peer.title,
        peer.command,
        lambda _: [[sys.executable, "-c", "raise SystemExit(1)"]],
    )
    monkeypatch.setattr(speed, "CONTENDERS", (broken, *others))
    with pytest.raises(SystemExit, match="the runtime refuses it"):
        speed.warm_up(
            [broken], speed.Task(tmp_path, tmp_path / "run", Path(sys.executable), threads=1)
        )
