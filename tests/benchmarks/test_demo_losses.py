"""`benchmarks/demo_losses.py`: what it measures, and the table that it writes."""

import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.family import family
from phiquant.recommendation.losses import DemoRow, demo_rows
from tiny_models import write_tiny_checkpoint

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_importable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in ("demo_losses", "checkpoints"):
        sys.modules.pop(name, None)


def test_engines_that_make_the_same_layers_share_a_row():
    from demo_losses import forms

    by_type = {(one.recipe.target, one.type): [] for one in forms(family()["Phi-4-mini-instruct"])}
    for one in forms(family()["Phi-4-mini-instruct"]):
        by_type[one.recipe.target, one.type].append(one.providers)
    assert by_type["openvino", "int8-asym-channel"] == [("cpu", "gpu")]
    assert by_type["onnx", "int4-b32"] == [("cpu", "mobile"), ("cuda", "dml")]  # other scales
    assert by_type["mlx", "3bit-g64"] == [("metal",)]


def row(type: str, bits: float, nats: float, providers: tuple[str, ...] = ("cpu",)):
    from demo_losses import TypeLoss

    runtime = "ONNX Runtime 1"

    return TypeLoss("onnx", type, providers, bits, nats, nats / 50, runtime, nats / 2, "mixed.txt")


def test_the_table_reads_back_as_it_was_measured():
    from demo_losses import table

    rows = [
        row("fp16", 16.0, 2.34e-6),
        row("int4-b32", 5.125, 0.52345),
        row("int4-b32", 4.625, 0.5, ("cuda", "dml")),
        row("fp32", 32.0, 0.0),
    ]
    text = table(rows)
    read = [DemoRow(*one) for one in tomllib.loads(text)["onnx"]]
    assert [one.type for one in read] == ["int4-b32", "int4-b32", "fp16", "fp32"]
    assert [one.bits for one in read] == [4.62, 5.12, 16.0, 32.0]
    assert [one.nats for one in read] == [0.5, 0.523, 2.34e-6, 0.0]
    assert read[0].error == 0.01
    assert "# cuda, dml" in text
    assert "Measured in ONNX Runtime 1." in text
    assert "Text: mixed.txt." in text


def test_what_a_slow_runtime_adds_is_noted():
    from demo_losses import DECODED, table

    rows = [
        replace(row(name, 4.0, nats), measured_in=DECODED) for name, nats in (("a", 1), ("b", 2))
    ]
    assert "adds up to 1 nats (b)" in table(rows)
    assert "adds" not in table([row("a", 4.0, 1.0)])


def test_the_shipped_table_is_in_the_command_s_words():
    from demo_losses import HEAD

    from phiquant.recommendation.losses import TABLE

    assert TABLE.read_text(encoding="utf-8").startswith(HEAD)
    assert demo_rows()


def test_rounding_to_bfloat16_keeps_all_else(tmp_path):
    from demo_losses import in_bfloat16

    write_tiny_checkpoint(tmp_path / "tiny", tie_word_embeddings=False)
    given = Checkpoint.open(tmp_path / "tiny")
    in_bfloat16(given, tmp_path / "rounded")
    rounded = Checkpoint.open(tmp_path / "rounded")
    assert rounded.dtype == "BF16"
    assert rounded.architecture == given.architecture
    for name in given.tensors:
        expected = given.weight(name)
        assert np.abs(rounded.weight(name) - expected).max() <= np.abs(expected).max() / 256
