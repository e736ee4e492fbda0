"""Files by attackers, one a row: each is refused in one sentence, soon, and in little memory."""

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from attacks import (
    adapter_files,
    checkpoint_files,
    configurations,
    gguf_files,
    mlx_files,
    onnx_files,
    openvino_files,
    records_and_tables,
    tokenizer_files,
    weights_and_cards,
)
from attacks.attack import FAILED_VERIFICATION
from command_line import (
    COMMAND,
    Ended,
    assert_refused,
    call,
    environment,
    files_in,
    tiny_model,
)
from memory_peak import Peak

ROWS = [
    *adapter_files.ATTACKS,
    *checkpoint_files.ATTACKS,
    *configurations.ATTACKS,
    *gguf_files.ATTACKS,
    *mlx_files.ATTACKS,
    *onnx_files.ATTACKS,
    *openvino_files.ATTACKS,
    *records_and_tables.ATTACKS,
    *tokenizer_files.ATTACKS,
    *weights_and_cards.ATTACKS,
]

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="some of the files cannot be made there: named pipes, links"
)

SECONDS = 5.0
"""Of the processor: what a refusal may take at most."""
MEMORY = 300 << 20
"""Bytes that it may take at most: here beyond what this process has, alone in all."""


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A directory with a sound checkpoint and its artifacts; they are copied and never changed."""
    place = tmp_path_factory.mktemp("sound")
    tiny_model(place / "checkpoint")
    adapter_files.write_adapter(place / "adapter")
    made = place / "made"
    targets = ("gguf", "mlx", "onnx", "openvino")
    ended = call("quantize", place / "checkpoint", "--to", ",".join(targets), "-o", made, "-q")
    assert ended.code == 0, ended.err
    for name in targets:
        (made / name).rename(place / name)
    return place


def name_of(row):
    return re.sub(r"[^\w]+", "-", f"{row.base} {row.name}").strip("-")


@dataclass(frozen=True)
class Told:
    """How a command ended, what it took, and what it left."""

    ended: Ended
    seconds: float
    grown: int
    left: bool


def damaged(row, sound, place):
    """Make the new directory `place` with a damaged copy; returns the words of the command."""
    place.mkdir()
    model = place / "model"
    shutil.copytree(sound / row.base, model)
    row.damage(model)
    names = {"MODEL": model, "OUT": place / "out", "HERE": place, "SOUND": sound / "checkpoint"}
    return [
        re.sub("MODEL|OUT|HERE|SOUND", lambda word: str(names[word[0]]), word)
        for word in row.command
    ]


def carried_out(row, sound, tmp_path):
    """Damage a copy and give the command."""
    place = tmp_path / "here"
    command = damaged(row, sound, place)
    before, peak, began = files_in(place), Peak(), time.process_time()
    ended = call(*command)
    seconds, grown = time.process_time() - began, peak.grown()
    return Told(ended, seconds, grown, files_in(place) != before)


@pytest.mark.parametrize("row", ROWS, ids=name_of)
def test_an_attack_is_one_sentence(row, sound, tmp_path):
    told = carried_out(row, sound, tmp_path)
    # A verification that fails shows its figures too.
    ended = replace(told.ended, out="") if row.code == FAILED_VERIFICATION else told.ended
    assert_refused(ended, row.code, *row.words)
    assert ended.err.count("\n") == 1, ended.err
    assert not told.left
    assert told.seconds < SECONDS
    assert told.grown < MEMORY


@pytest.mark.parametrize("row", weights_and_cards.HARMLESS, ids=name_of)
def test_what_is_odd_and_harmless_costs_little(row, sound, tmp_path):
    told = carried_out(row, sound, tmp_path)
    assert told.ended.code == 0, told.ended.err
    assert told.seconds < SECONDS
    assert told.grown < MEMORY


# In processes of their own


BY_NAME = {row.name: row for row in ROWS}
ALONE = (
    "a pipe for config.json",
    "1.5 million empty tensors",
    "a million tokens",
    "an expression of exponential time",
    "a megabyte of 0xFF",
    "an array of 60 million",
    "millions of empty nodes",
    "58 doubled edges",
    "an attribute of 200 MB",
)
"""Rows of each format, the ones that took most or never ended among them."""


LIMITED = Path(__file__).with_name("limited.py")


def alone(place, words):
    """How `phiquant words...` ended in a process of its own, limited to SECONDS of the processor,
    and the most bytes that it had in memory.
    """
    report = place / "bytes"
    limited = [sys.executable, LIMITED, str(int(SECONDS)), report]
    done = subprocess.run(
        [*limited, *COMMAND, *words],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr), int(report.read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells a process's memory otherwise")
@pytest.mark.parametrize("name", ALONE)
def test_an_attack_in_a_process_of_its_own(name, sound, tmp_path):
    row = BY_NAME[name]
    ended, most = alone(tmp_path, damaged(row, sound, tmp_path / "here"))
    assert_refused(ended, row.code, *row.words)
    assert ended.err.count("\n") == 1
    assert most < MEMORY, f"{most >> 20} MiB"
