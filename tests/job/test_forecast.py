"""What a job is said to take in memory; benchmarks/job_memory.py measures whole jobs."""

from dataclasses import replace

import pytest

from phiquant.job import forecast
from phiquant.job.streaming import WAITING
from phiquant.phi.family import family
from phiquant.recipe import Recipe
from phiquant.targets.streamed_file import SYNC_EVERY
from phiquant.targets.table import target, targets

PHI = family()["Phi-4-mini-instruct"]
VOCABULARY = PHI.architecture.vocabulary_size


@pytest.fixture(autouse=True)
def time_is_not_measured(monkeypatch):
    monkeypatch.setattr(forecast, "_seconds", lambda plans: 1.0)


def plan(name, precision="int4", architecture=PHI.architecture):
    return target(name).plan(architecture, PHI.survey, Recipe(name, precision).form)


def memory(*plans, vocabulary=VOCABULARY):
    return forecast.forecast(plans, vocabulary).memory


@pytest.mark.parametrize("name", [one.name for one in targets()])
def test_a_job_takes_far_less_than_its_artifact(name):
    made = plan(name)
    assert WAITING < memory(made) < 500e6 < made.nbytes / 4


def test_each_target_adds_to_a_job():
    plans = [plan(one.name) for one in targets()]
    sizes = [memory(*plans[: count + 1]) for count in range(len(plans))]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < sum(memory(one) for one in plans)


def test_a_vocabulary_is_held_once_and_by_each_writer():
    for one in targets():
        more = memory(plan(one.name)) - memory(plan(one.name), vocabulary=0)
        assert 680 * VOCABULARY < more < 1200 * VOCABULARY


def test_nothing_waits_for_a_disk_that_has_not_been_asked_yet():
    small = [row for row in plan("gguf").rows if row.nbytes < SYNC_EVERY / 2][:3]
    assert sum(row.nbytes for row in small) < SYNC_EVERY
    large = memory(plan("gguf"))
    assert large - memory(replace(plan("gguf"), rows=tuple(small))) > WAITING / 2


def test_wider_elements_make_wider_bands():
    sizes = [memory(plan("gguf", precision)) for precision in ("int4", "int8", "fp16", "fp32")]
    assert sizes == sorted(sizes)
    assert sizes[-1] - sizes[0] < 100e6
