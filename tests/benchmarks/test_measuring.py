"""The benchmark's instruments: what they count, and what they must not."""

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
MIB = 1 << 20

linux = pytest.mark.skipif(sys.platform != "linux", reason="measures through /proc")


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("memory", "tables", "verdict", "checkpoints"):
        sys.modules.pop(name, None)


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.fixture
def until_seen(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Makes Python text for a measured command, which holds it until the instrument has looked.

    `until_seen("note_sizes")` goes on when that function of `memory.py` has run from its beginning
    to its end.
    """
    import memory

    directory = tmp_path_factory.mktemp("held")
    arrived, seen = directory / "arrived", directory / "seen"

    def text(instrument: str) -> str:
        look = getattr(memory, instrument)

        def watched(*words):
            is_here = arrived.exists()
            result = look(*words)
            if is_here:
                arrived.unlink()
                seen.open("w").close()  # both ends of the pipe wait for each other to open it
            return result

        monkeypatch.setattr(memory, instrument, watched)
        return f"open({str(arrived)!r}, 'w').close(); open({str(seen)!r}).read()"

    os.mkfifo(seen)
    return text


@linux
def test_anonymous_memory_of_a_grandchild_is_counted(until_seen):
    from memory import measure

    hold = f"held = bytearray(150 << 20); {until_seen('memory_of_tree')}"
    parent = (
        "import subprocess, sys, time; began = time.perf_counter()\n"
        f"subprocess.run([sys.executable, '-c', {hold!r}])\n"
        "print(time.perf_counter() - began)"
    )
    usage = measure(python(parent))
    assert usage.status == 0
    assert 150 * MIB < usage.anonymous < 220 * MIB
    assert usage.wall > float(usage.output) > 0


@linux
def test_mapped_file_is_resident_but_not_anonymous(tmp_path: Path, until_seen):
    from memory import measure

    file = tmp_path / "mapped"
    file.write_bytes(bytes(100 * MIB))
    script = (
        "import mmap, sys\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(mapped[at] for at in range(0, len(mapped), 4096))\n" + until_seen("memory_of_tree")
    )
    usage = measure([*python(script), str(file)])
    assert usage.status == 0, usage.errors
    assert usage.resident > 100 * MIB
    assert usage.anonymous < 60 * MIB


@linux
def test_renamed_output_is_no_intermediate_file_and_a_removed_one_is(tmp_path: Path, until_seen):
    from memory import measure

    script = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        f"open('scratch', 'wb').write(bytes(3000)); {until_seen('note_sizes')}\n"
        "open('partial', 'wb').write(bytes(5000)); os.rename('partial', 'output')\n"
        "os.remove('scratch') if sys.argv[2] == 'remove' else None"
    )
    output = tmp_path / "output"
    usage = measure([*python(script), str(tmp_path), "remove"], tmp_path)
    assert usage.largest_intermediate([output]) == 3000
    (tmp_path / "output").unlink()
    usage = measure([*python(script), str(tmp_path), "keep"], tmp_path)
    assert usage.largest_intermediate([output, tmp_path / "scratch"]) == 0


@linux
def test_failure_and_output_are_handed_back():
    from memory import measure

    usage = measure(python("import sys; print('said'); sys.exit('why')"))
    assert (usage.status, usage.output.strip(), usage.errors.strip()) == (1, "said", "why")


def test_bfloat16_rounds_to_nearest_even():
    from checkpoints import round_to_bfloat16

    edges = [1.0, 1.00390625, 1.01171875, -1.00390625, 0.02, -0.0, 3e-39, 1e-45]
    values = np.array([*edges, *np.random.default_rng(7).normal(0, 0.02, 500)], dtype=np.float32)

    def nearest(value: float) -> int:
        below = struct.unpack("<I", struct.pack("<f", value))[0] >> 16
        candidates = (below, below + 1)

        def distance(code: int) -> float:
            return abs(struct.unpack("<f", struct.pack("<I", code << 16))[0] - value)

        return min(candidates, key=lambda code: (distance(code), code & 1))

    assert round_to_bfloat16(values).tolist() == [nearest(float(value)) for value in values]


def test_weights_are_sharded_as_the_index_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import json
    from dataclasses import replace

    import checkpoints

    monkeypatch.setattr(checkpoints, "SHARD_BYTES", 300_000)
    monkeypatch.setattr(checkpoints, "POOL", 1 << 16)
    monkeypatch.setattr(checkpoints, "BAND", 1 << 12)
    small = replace(
        checkpoints.phi4_mini_architecture(layers=2),
        hidden_size=96,
        heads=3,
        kv_heads=1,
        head_size=32,
        intermediate_size=160,
        vocabulary_size=501,
    )
    checkpoints.write_weights(tmp_path, small.weights())
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    for weight in small.weights():
        with safe_open(tmp_path / index["weight_map"][weight.name], "np") as file:
            part = file.get_slice(weight.name)
            assert tuple(part.get_shape()) == weight.shape
            assert part.get_dtype() == "BF16"


def test_phi4_mini_has_the_published_size():
    from checkpoints import byte_size, phi4_mini_architecture

    assert sum(map(byte_size, phi4_mini_architecture().weights())) == 7_672_043_520


def a_run(contender: str, wall: float, anonymous: int = 0):
    from verdict import Run

    return Run(contender, wall, 0.0, wall, anonymous, anonymous, 0, 0, 0)


def test_rows_compare_medians_with_the_bars():
    from verdict import rows

    walls = {"peer-gguf": 100.0, "ours-gguf": 25.0, "peer-mlx": 30.0, "ours-mlx": 18.3}
    runs = [a_run(name, wall) for name, wall in walls.items()]
    runs += [a_run("ours-gguf", 20.0), a_run("ours-gguf", 90.0)]
    runs += [a_run("ours-both", 40.0, anonymous=1_000_000_001)]
    gguf, mlx, onnx, openvino, both, memory, intermediate, startup = rows(runs, [0.2, 0.9, 0.25])
    assert (onnx.verdict, openvino.verdict) == ("not run", "not run")
    assert (gguf.record["value"], gguf.passed) == (0.25, True)
    assert mlx.passed is False
    assert both.record["value"] == pytest.approx(40.0 / 43.3)
    assert memory.passed is False
    assert intermediate.passed
    assert startup.record["value"] == 0.25


def test_both_at_once_must_be_faster_than_apart_not_equal():
    from verdict import rows

    runs = [a_run("ours-gguf", 10.0), a_run("ours-mlx", 5.0), a_run("ours-both", 15.0)]
    assert rows(runs, [])[4].passed is False


def test_what_was_not_run_has_no_verdict():
    from verdict import rows

    assert [row.verdict for row in rows([a_run("peer-mlx", 3.0)], [])] == ["not run"] * 8
