"""Files by attackers, one a row: each is refused in one sentence, soon, and in little memory."""

import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from attacks import (
    checkpoint_files,
    configurations,
    gguf_files,
    mlx_files,
    onnx_files,
    openvino_files,
    records_and_tables,
    tokenizer_files,
)
from attacks.attack import FAILED_VERIFICATION
from command_line import assert_refused, call, files_in, tiny_model

ROWS = [
    *checkpoint_files.ATTACKS,
    *configurations.ATTACKS,
    *gguf_files.ATTACKS,
    *mlx_files.ATTACKS,
    *onnx_files.ATTACKS,
    *openvino_files.ATTACKS,
    *records_and_tables.ATTACKS,
    *tokenizer_files.ATTACKS,
]

SECONDS = 5.0
"""Of the processor: what a refusal may take at most."""
MEMORY = 300 << 20
"""Bytes that it may take at most, beyond what the process has."""


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A directory with a sound checkpoint and its artifacts; they are copied and never changed."""
    place = tmp_path_factory.mktemp("sound")
    tiny_model(place / "checkpoint")
    made = place / "made"
    targets = ("gguf", "mlx", "onnx", "openvino")
    ended = call("quantize", place / "checkpoint", "--to", ",".join(targets), "-o", made, "-q")
    assert ended.code == 0, ended.err
    for name in targets:
        (made / name).rename(place / name)
    return place


def name_of(row):
    return re.sub(r"[^\w]+", "-", f"{row.base} {row.name}").strip("-")


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_an_attack_is_one_sentence(row, sound, tmp_path):
    place = tmp_path / "here"
    place.mkdir()
    model = place / "model"
    shutil.copytree(sound / row.base, model)
    row.damage(model)
    names = {"MODEL": model, "OUT": place / "out", "HERE": place, "SOUND": sound / "checkpoint"}
    command = [
        re.sub("MODEL|OUT|HERE|SOUND", lambda word: str(names[word[0]]), word)
        for word in row.command
    ]
    before = files_in(place)
    base, began = memory(), time.process_time()
    reset_peak()
    ended = call(*command)
    took, grown = time.process_time() - began, peak() - base
    if row.code == FAILED_VERIFICATION:  # which shows its figures too
        ended = replace(ended, out="")
    assert_refused(ended, row.code, *row.words)
    assert files_in(place) == before
    assert took < SECONDS
    assert grown < MEMORY


STATUS = Path("/proc/self/status")


def memory():
    return _status("VmRSS")


def peak():
    """The most memory since `reset_peak`; where the system does not tell, what there is now."""
    return _status("VmHWM")


def reset_peak():
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def _status(field):
    if not STATUS.exists():
        return 0
    return int(re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())[1]) << 10
