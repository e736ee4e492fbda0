"""The parts of `benchmarks/accuracy.py`: making and keeping, verdicts, what ours is asked for."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
MODULES = (
    "contenders",
    "fidelity",
    "machine",
    "making",
    "memory",
    "opponents",
    "scores",
    "tables",
    "verdict",
    "products",
)


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def subject(mean: float | None, nbytes: int = 1000, processor: float = 10.0, name: str = "one"):
    from fidelity import Loss
    from making import Cost
    from scores import Subject

    loss = None
    if mean is not None:
        loss = Loss(mean, 0.01, 1.0, 0.1, 0.9, 0.01, nbytes, "types", "runtime", "text")
    cost = Cost(processor / 2, processor, 1 << 20, 1 << 21)
    return Subject("tied", name, name, loss, cost, None if loss else "broken")


def test_ratio_passes_at_the_bar_and_no_more_bytes():
    from scores import ratio_row
    from tables import Bar

    row = ratio_row("row", subject(0.2), subject(1.0), Bar(0.2))
    assert row.passed is True
    assert ratio_row("row", subject(0.2001), subject(1.0), Bar(0.2)).passed is False
    assert ratio_row("row", subject(0.2, nbytes=1001), subject(1.0), Bar(0.2)).passed is False


def test_better_than_the_peer_is_missed_when_equal():
    from scores import ratio_row
    from tables import Bar

    bar = Bar(1.0, below=True)
    assert ratio_row("row", subject(0.5), subject(0.5), bar).passed is False
    assert ratio_row("row", subject(0.4999), subject(0.5), bar).passed is True


def test_what_could_not_be_measured_is_a_miss():
    from scores import absolute_row, ratio_row
    from tables import Bar

    assert ratio_row("row", subject(None), subject(1.0), Bar(0.2)).passed is False
    assert ratio_row("row", None, subject(None), Bar(0.2)).passed is False
    assert ratio_row("row", None, subject(1.0), Bar(0.2)).passed is None
    assert absolute_row("row", subject(None), Bar(0.01)).passed is False


def test_time_is_processor_time():
    from scores import time_row
    from tables import Bar

    ours, peer = subject(0.1, processor=9.0), subject(0.1, processor=100.0)
    assert time_row("row", ours, peer, Bar(0.1)).record["value"] == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("means", "passed"),
    [
        ((0.6, 0.5, 0.4, 0.3, 0.2, 0.1), True),
        ((0.6, 0.5, 0.5, 0.3, 0.2, 0.1), True),
        ((0.6, 0.5, 0.50001, 0.3, 0.2, 0.1), False),
        ((0.6, 0.5, 0.4, 0.3, 0.2), False),
        ((0.6, 0.5, None, 0.3, 0.2, 0.1), False),
    ],
)
def test_curve_must_not_rise_and_needs_six_points(means, passed):
    from scores import curve_row

    assert curve_row("curve", [subject(mean) for mean in means]).passed is passed


def test_artifact_is_kept_with_its_cost_and_reused(tmp_path: Path):
    if sys.platform != "linux":
        pytest.skip("measures through /proc")
    from contenders import Task
    from making import make

    made = 0

    def command(task):
        nonlocal made
        made += 1
        script = "import pathlib, sys; path = pathlib.Path(sys.argv[1]); path.mkdir();"
        script += "(path / 'model').write_text('whole'); (path.parent / 'left').mkdir()"
        return [sys.executable, "-c", script, task.output]

    task = Task(tmp_path, tmp_path / "tied" / "any", Path(sys.executable), 1)
    first = make("peer", command, task, reuse=True)
    again = make("peer", command, task, reuse=True)
    assert made == 1
    assert (first.path / "model").read_text() == "whole"
    assert first.cost == again.cost
    assert first.cost.wall > 0
    assert {path.name for path in first.path.parent.iterdir()} == {"output", "cost.json"}
    make("peer", command, task, reuse=False)
    assert made == 2


def test_no_tool_is_held_back_by_kernels_pinned_for_another(tmp_path, monkeypatch):
    if sys.platform != "linux":
        pytest.skip("measures through /proc")
    from contenders import Task
    from making import make

    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("PHIQUANT_TEST_KEPT", "1")
    script = "import os, pathlib, sys; path = pathlib.Path(sys.argv[1]); path.mkdir();"
    script += "(path / 'seen').write_text(' '.join(os.environ))"

    def command(task):
        return [sys.executable, "-c", script, task.output]

    task = Task(tmp_path, tmp_path / "tied" / "any", Path(sys.executable), 1)
    seen = (make("peer", command, task, reuse=False).path / "seen").read_text().split()
    assert "OPENBLAS_CORETYPE" not in seen
    assert {"PHIQUANT_TEST_KEPT", "HF_HUB_OFFLINE"} <= set(seen)


def test_failed_tool_leaves_nothing_to_reuse(tmp_path: Path):
    if sys.platform != "linux":
        pytest.skip("measures through /proc")
    from contenders import Task
    from making import MakingError, make

    def command(task):
        return [sys.executable, "-c", "import sys; sys.exit('no such thing')"]

    task = Task(tmp_path, tmp_path / "tied" / "any", Path(sys.executable), 1)
    with pytest.raises(MakingError, match="no such thing"):
        make("peer", command, task, reuse=True)
    assert not (tmp_path / "tied" / "peer").exists()


def test_ours_is_asked_for_at_the_peers_bytes():
    from opponents import AUTOROUND, MATCHES, requested

    by_peer = {match.peer: match for match in MATCHES}
    words = requested(by_peer["onnx"], 12345, "best").words
    assert words[words.index("--max-size") + 1] == "12345B"
    fixed = requested(by_peer["gguf-q4-0"], 12345, "best").words
    assert "--max-size" not in fixed
    assert fixed[fixed.index("--type") + 1] == "Q4_0"
    same_text = requested(by_peer[AUTOROUND], 0, "best").words
    assert same_text[same_text.index("--calibration-size") + 1] == "64x500"


def test_every_match_has_a_peer_that_is_made_for_its_models():
    from opponents import BY_NAME, EVERY, MATCHES

    from phiquant.recipe import QUALITIES

    for match in MATCHES:
        assert set(match.bars) <= set(QUALITIES)
        for model in EVERY:
            compared = [match.bar(model, quality) for quality in QUALITIES]
            made = model in BY_NAME[match.peer].models
            assert made or compared == [None] * len(QUALITIES)


def test_kept_loss_is_of_the_same_text_only(tmp_path: Path):
    from fidelity import FIGURES, kept, text_of

    class Sample:
        sha256, windows, window = "abc" * 10, 24, 256

    class Truth:
        sample = Sample()

    loss = subject(0.5).loss
    assert kept(tmp_path, Truth(), lambda: loss) == loss
    other = subject(0.7).loss
    assert kept(tmp_path, Truth(), lambda: other) == other
    document = json.loads((tmp_path / FIGURES).read_text())
    (tmp_path / FIGURES).write_text(json.dumps(document | {"text": text_of(Truth())}))
    assert kept(tmp_path, Truth(), lambda: loss).mean == 0.7


def test_patched_weights_stand_before_the_checkpoints():
    from fidelity import Patched

    class Under:
        architecture = None

        def weight(self, name, first=0, last=None):
            return np.zeros((4, 2), np.float32)[first:last]

    one, two = (np.full((4, 2), value, np.float32) for value in (1, 2))
    source = Patched(Under(), {"a": one, "c": one}, {"c": two})
    assert source.weight("a", 1, 3).tolist() == [[1, 1], [1, 1]]
    assert source.weight("b", 1, 3).tolist() == [[0, 0], [0, 0]]
    assert source.weight("c", 1, 3).tolist() == [[2, 2], [2, 2]]


def test_minimal_products_of_a_block_by_hand():
    from products import count

    from phiquant.phi.architecture import Architecture
    from phiquant.phi.network.parts import Rope
    from phiquant.quantization.feedback.rounder import Method

    model = Architecture(
        hidden_size=4, layers=1, heads=2, kv_heads=1, head_size=2, intermediate_size=8,
        vocabulary_size=16, norm_epsilon=1e-5, tied_head=False, max_positions=64,
        sliding_window=None, rope=Rope(theta=1e4, dimensions=2, long=None),
    )  # fmt: skip
    counted = count(model, 3, 5)
    shapes = [(8, 4), (4, 4), (16, 4), (4, 8)]  # qkv, o, gate and up, down
    streams = 2 if Method().shift else 1
    forward = 15 * (sum(2 * rows * columns for rows, columns in shapes) + 2 * 5 * 4)
    assert counted.forward == forward * (streams + Method().rescaling)
    inverses = sum(columns**3 for _, columns in (*shapes, (16, 4)))
    corrected = sum(2 * c**3 + 2 * r * c**2 for r, c in shapes)
    adding = [(4, 4), (4, 8)]  # o, down: they make up for the stream behind
    assert counted.factors == inverses + corrected + sum(2 * r * c**2 for r, c in adding)
    seen = sum(3 * c**2 for _, c in shapes) + sum(2 * r * c for r, c in adding)
    assert counted.moments == 15 * (seen + 4**2)
    # A sweep over codes everywhere, one over parameters in the head; 256 rows give feedback.
    assert counted.rounding == sum(r * c * (c + 256) * 3 for r, c in shapes) + 16 * 4**2 * 5
    attention = 2 * 5 * 4
    there = sum(2 * r * c for r, c in shapes) + attention
    again = there - 2 * 4 * 8
    back = sum(2 * r * c + 2 * 256 * 256 for r, c in shapes) + 5 * attention // 2
    assert counted.outputs == 15 * (there + again + back + 6 * 16 * 4)
    from phiquant.calibration.cost import Cost

    assert counted.outputs == Cost(model, 15, 5, 1, Method()).fisher.total
    kinds = (counted.forward, counted.moments, counted.factors, counted.rounding, counted.outputs)
    assert math.isclose(counted.total, sum(kinds))


def test_a_protection_must_lose_less_and_says_what_it_takes():
    from scores import gain_row

    row = gain_row("row", subject(0.5, nbytes=1020), subject(1.0))
    assert row.passed is True
    assert row.record["value_text"] == "0.500 for +2.0% bytes"
    assert gain_row("row", subject(1.0), subject(1.0)).passed is False
    assert gain_row("row", subject(None), subject(1.0)).passed is False


def test_a_protected_artifact_and_its_plain_twin_differ_in_the_type_alone():
    from opponents import requested_protection

    protected, plain = requested_protection("openvino", "balanced")
    assert protected.words == ("--to", "openvino", "--quality", "balanced")
    assert plain.words == (
        "--to", "openvino", "--type", "int4-sym-g64", "--quality", "balanced",
    )  # fmt: skip


def test_parts_that_fast_has_nothing_for_are_refused_alone(capsys):
    from accuracy import read_options

    assert read_options(["--quality", "fast", "--only", "curve", "int8"]).quality == "fast"
    with pytest.raises(SystemExit):
        read_options(["--quality", "fast", "--only", "protection", "curve"])
    assert "nothing of quality fast" in capsys.readouterr().err


def test_a_row_says_which_version_made_its_artifact():
    from dataclasses import replace

    from scores import subject_cells

    one = subject(0.1)
    assert subject_cells(one)[-1] == "an earlier version"
    ours = replace(one, cost=replace(one.cost, maker="0123abc"))
    assert subject_cells(ours)[-1] == "0123abc"
