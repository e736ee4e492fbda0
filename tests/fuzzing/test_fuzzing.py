"""A short run of the fuzzer over every parser; `make fuzz` is the long one."""

from random import Random

import pytest

from fuzzing.guided import reach
from fuzzing.parsers import PARSERS, prepare, write_sound
from fuzzing.turns import fuzz

EXECUTIONS, SLOW = 80, 2
SEED = 20260728


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The sound files."""
    place = tmp_path_factory.mktemp("sound")
    write_sound(place)
    prepare(place)
    return place


@pytest.mark.parametrize("name", PARSERS)
def test_a_sound_file_is_read(name, sound):
    parser = PARSERS[name]
    parser.read(sound / parser.directory)


@pytest.mark.parametrize("name", PARSERS)
def test_changed_files_are_read_or_refused(name, sound):
    parser = PARSERS[name]
    count = SLOW if parser.slow else EXECUTIONS
    outcome = fuzz(parser, sound, SEED, executions=count, seconds=600)
    assert outcome.executions == count
    assert not outcome.findings, outcome.findings.keys()


@pytest.mark.parametrize("name", PARSERS)
def test_the_same_seed_gives_the_same_files(name, sound):
    parser = PARSERS[name]
    data = (sound / parser.directory / parser.file).read_bytes()

    def changed():
        random = Random(7)
        return [random.choice(parser.mutations)(random, data) for _ in range(20)]

    first = changed()
    assert first == changed()
    assert sum(variant != data for variant in first) >= 15


@pytest.mark.long
def test_coverage_leads_on():
    """Files that are led reach more than the sound file does, and nothing that is a finding."""
    pytest.importorskip("atheris", reason="make fuzz-guided installs it")
    at_once = reach("onnx graph", seconds=1, seed=1, led=True)
    led = reach("onnx graph", seconds=30, seed=1, led=True)
    assert not led.finding
    assert led.files > at_once.files > 0
    assert led.branches > at_once.branches > 0
