"""Every target's writer raises where it was given less than its plan has."""

import pytest

from command_line import tiny_model
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.survey import survey
from phiquant.recipe import Recipe
from phiquant.targets.table import MODULES, target
from phiquant.targets.writing import Incomplete


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.open(tiny_model(tmp_path_factory.mktemp("writing") / "tiny"))


def write(name, checkpoint, directory, left_out):
    """All rows of the plan but those of which `left_out` says so."""
    into, form = target(name), Recipe(name).form
    plan = into.plan(checkpoint.architecture, survey(checkpoint), form)
    directory.mkdir()
    with into.writer(plan, checkpoint, form, directory) as writer:
        for row in plan.rows:
            if row.source is None:
                continue
            weights = checkpoint.weight(row.source).reshape(-1, row.shape[-1])
            half = len(weights) // 2 if len(row.shape) > 1 else len(weights)
            for first in {0, half} - {len(weights)}:
                band = weights[first : half if first < half else None]
                if not left_out(row, first):
                    writer.write(row, first, into.grids[row.grid].encode(band))


@pytest.mark.parametrize("name", MODULES)
def test_all_of_the_plan_is_an_artifact(name, checkpoint, tmp_path):
    write(name, checkpoint, tmp_path / "out", lambda row, first: False)
    assert target(name).recognises(tmp_path / "out")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize(
    "left_out",
    [
        lambda row, first: len(row.shape) == 1 and row.layer == 1,
        lambda row, first: row.role == "down" and row.layer == 0,
        lambda row, first: row.role == "down" and row.layer == 0 and first == 0,
        lambda row, first: row.role == "embedding" and first > 0,
    ],
    ids=["a vector", "a matrix", "the first half", "the second half"],
)
def test_less_than_the_plan_raises(name, left_out, checkpoint, tmp_path):
    with pytest.raises(Incomplete, match="incomplete"):
        write(name, checkpoint, tmp_path / "out", left_out)
