"""The command on a card makes the artifact that the card describes, byte for byte."""

import re
import shlex
from pathlib import Path

import pytest

from command_line import call


@pytest.mark.parametrize(
    "words",
    [
        ("--to", "openvino", "--ov-device", "gpu", "--ratio", 0.5),
        ("--quality", "balanced", "--calibration", "text.txt", "--calibration-size", "4x32"),
        ("--bits-per-weight", 6, "--calibration", "text.txt", "--calibration-size", "8x64"),
        ("--quality", "balanced", "--imatrix", "matrix.gguf"),
    ],
    ids=["options", "calibration", "budget", "importance matrix"],
)
def test_the_command_on_the_card(model, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Path("tiny-phi").symlink_to(model)
    Path("text.txt").write_text("Some words to calibrate on, and then again some more. " * 200)
    if "matrix.gguf" in words:
        write = ("--calibration-size", "4x32", "--imatrix-out", "matrix.gguf")
        assert call("quantize", "tiny-phi", *write, "-o", "by-the-way", "-q").code == 0
    made = call("quantize", "tiny-phi", *words, "-o", "first", "-q")
    assert made.code == 0, made.err
    card = Path("first", "README.md").read_text()
    command = re.search(r"^phiquant quantize .*$", card, re.MULTILINE)
    again = call(*shlex.split(command[0].replace("-o OUT", "-o second"))[1:], "-q")
    assert again.code == 0, again.err
    for path in Path("first").iterdir():
        if path.name not in ("README.md", "phiquant.json"):
            assert path.read_bytes() == Path("second", path.name).read_bytes(), path.name
    told = Path("second", "README.md").read_text()
    assert told.partition("With phiquant")[0] == card.partition("With phiquant")[0]


def test_only_what_has_fewer_bits_is_tagged_as_quantized(model, tmp_path):
    for precision in ("int8", "fp16", "fp32"):
        out = tmp_path / precision
        assert call("quantize", model, "--precision", precision, "-o", out, "-q").code == 0
        tagged = "\n- quantized\n" in (out / "README.md").read_text()
        assert tagged == (precision == "int8"), precision
