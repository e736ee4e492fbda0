"""The calibrated run: streams against the reference, resuming, and what it gains."""

import numpy as np
import pytest

from phiquant.calibration.cost import Cost
from phiquant.calibration.fisher import gather_output_moments
from phiquant.calibration.fisher_cost import FisherCost
from phiquant.calibration.hidden_states import HiddenStates
from phiquant.calibration.journal import Journal
from phiquant.calibration.walk import Sides, walk_block
from phiquant.job.layerwise import Calibration, Wanted, calibrate
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network.linear import embed
from phiquant.phi.network.parts import Role, Step
from phiquant.phi.reference import Reference
from phiquant.planning.parts import taken_apart
from phiquant.progress import ignore
from phiquant.quantization.feedback.rounder import Method
from phiquant.targets.table import target, targets
from tiny_models import write_tiny_checkpoint

LENGTH = 24


def model(directory, **changes):
    write_tiny_checkpoint(directory, **changes)
    return Checkpoint.open(directory)


def sample(checkpoint, count=6):
    random = np.random.default_rng(3)
    size = checkpoint.architecture.vocabulary_size
    return random.integers(0, size, (count, LENGTH)).astype(np.int32)


class Unchanged:
    """A network whose layers are left as they are."""

    def __init__(self, states):
        self.states = states
        self.seen = []

    def round(self, weight, values, moments):
        self.seen.append((weight.name, moments))
        return values


@pytest.mark.parametrize("changes", [{}, {"sliding_window": 7}, {"tie_word_embeddings": True}])
def test_a_stream_through_unchanged_layers_is_the_reference(tmp_path, changes):
    checkpoint = model(tmp_path / "model", **changes)
    tokens = sample(checkpoint)
    states = HiddenStates(checkpoint.architecture, tokens, tmp_path / "states")
    for chunk in states.chunks():
        states.embed(chunk, embed(checkpoint, tokens[chunk.first : chunk.last].reshape(-1)))
    network = Unchanged(states)
    for layer in range(checkpoint.architecture.layers):
        list(walk_block(checkpoint, Sides(None, [network]), layer))
    gains = checkpoint.weight("model.norm.weight")
    (chunk,) = states.chunks()
    whole = checkpoint.architecture.network
    inputs = states.inputs(chunk, Step(whole.head, whole.norm, None), gains)
    expected = np.concatenate(Reference(checkpoint).hidden_states(list(tokens)))
    assert np.allclose(inputs, expected, atol=1e-5 * np.abs(expected).max())
    assert len(network.seen) == 4 * checkpoint.architecture.layers


def test_moments_are_those_of_the_layers_inputs(tmp_path):
    checkpoint = model(tmp_path / "model")
    tokens = sample(checkpoint)
    inputs = {}

    def observe(name, values):
        inputs.setdefault(name, []).append(values.copy())

    Reference(checkpoint, observe=observe).hidden_states(list(tokens))
    states = HiddenStates(checkpoint.architecture, tokens, tmp_path / "states")
    for chunk in states.chunks():
        states.embed(chunk, embed(checkpoint, tokens[chunk.first : chunk.last].reshape(-1)))
    network = Unchanged(states)
    for layer in range(checkpoint.architecture.layers):
        list(walk_block(checkpoint, Sides(None, [network]), layer))
    for name, moments in network.seen:
        x = np.concatenate(inputs[name]).astype(np.float64)
        assert np.allclose(moments.second, x.T @ x / len(x), atol=1e-4 * np.square(x).mean() * 10)


def wanted(checkpoint, precision="int4", apart=False):
    from phiquant.job.prospect import make_plans
    from phiquant.phi.survey import survey
    from phiquant.recipe import Recipe

    recipes = [Recipe(one.name, precision) for one in targets()]
    surveyed = survey(checkpoint)
    plans = make_plans(checkpoint.architecture, recipes, surveyed)
    arrays = []
    for recipe, whole in zip(recipes, plans, strict=True):
        into, rows = target(recipe.target), {}
        plan = whole
        if apart and into.apart:
            choices = into.choices_for(recipe.form, surveyed)
            plan = taken_apart(whole, checkpoint.architecture, choices)
        for row in plan.rows:
            if row.source:
                rows.setdefault(row.source, []).append(row)
        arrays.append(Wanted(recipe.target, rows, into.grids))
    return arrays


def every_row(one):
    return [row for rows in one.rows.values() for row in rows]


def stored(journal, one, name):
    """A weight as the journal has it for an artifact, decoded."""
    arrays = []
    for row in one.rows[name]:
        grid = one.grid(row)
        parts = journal.parts(one.name, row.output, grid.layout(row.shape))
        arrays.append(grid.decode(parts, row.shape[1]))
    return np.concatenate(arrays)


def outputs(network, one, journal):
    """The head's inputs as the artifact in the journal makes them; its norms are the network's."""

    class Source:
        architecture = network.architecture

        def weight(self, name, first=0, last=None):
            if one.rows[name][0].role.is_norm:
                return network.weight(name, first, last)
            return stored(journal, one, name)[first:last]

    return Reference(Source())


@pytest.mark.parametrize(("tied", "apart"), [(False, False), (True, False), (False, True)])
def test_every_target_gets_all_its_matrices_and_errs_less_than_without_calibration(
    tmp_path, tied, apart
):
    checkpoint = model(tmp_path / "model", tie_word_embeddings=tied)
    tokens = sample(checkpoint, 16)
    artifacts = wanted(checkpoint, apart=apart)
    assert any(len(rows) > 1 for one in artifacts for rows in one.rows.values()) == apart
    journal = Journal(tmp_path / "journal", {})
    network = calibrate(checkpoint, artifacts, Calibration(tokens, Method()), journal, ignore)
    true = np.concatenate(Reference(checkpoint).hidden_states(list(tokens)))
    for one in artifacts:
        matrices = [row for row in every_row(one) if not row.role.is_norm]
        for row in matrices:
            layout = one.grid(row).layout(row.shape)
            kept = journal.parts(one.name, row.output, layout)
            assert {n: (p.dtype, p.shape) for n, p in kept.items()} == {
                n: (p.dtype, p.shape) for n, p in layout.items()
            }

        class Plain:
            architecture = checkpoint.architecture
            artifact = one

            def weight(self, name, first=0, last=None):
                values = checkpoint.weight(name)
                if self.artifact.rows[name][0].role.is_norm:
                    return values[first:last]
                rounded = np.empty_like(values)
                for row in self.artifact.rows[name]:
                    grid, here = self.artifact.grid(row), row.overlap(0, len(values))
                    rounded[here] = grid.decode(grid.encode(values[here]), row.shape[1])
                return rounded[first:last]

        ours = np.concatenate(outputs(network, one, journal).hidden_states(list(tokens)))
        plain = np.concatenate(Reference(Plain()).hidden_states(list(tokens)))
        assert np.square(ours - true).sum() < np.square(plain - true).sum(), one.name


class KilledError(Exception):
    pass


KILLED = {
    # The news of the start, a block of four, and into the second; before it, three blocks there,
    # the head, and three back.
    "as the checkpoint scales them": (Method(rescaling=False), 14, 7, 1),
    "rows alone": (Method(output_damping=None), 7, 0, 1),
    "the shift left out": (Method(shift=0), 14, 7, 1),
    "two-sided": (Method(), 14, 7, 1),
    "on the way there": (Method(), 3, 2, 0),
    "at the head": (Method(), 4, 3, 0),
    "on the way back": (Method(), 6, 5, 0),
}


@pytest.mark.parametrize(("method", "at", "steps", "blocks"), KILLED.values(), ids=KILLED)
def test_a_run_that_was_killed_goes_on_and_ends_the_same(
    tmp_path, monkeypatch, method, at, steps, blocks
):
    checkpoint = model(tmp_path / "model", num_hidden_layers=3)
    over = Calibration(sample(checkpoint), method)
    artifacts = wanted(checkpoint)[:2]
    whole = Journal(tmp_path / "whole", {"key": 1})
    calibrate(checkpoint, artifacts, over, whole, ignore)

    calls = 0

    def kill(progress):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KilledError

    with pytest.raises(KilledError):
        calibrate(checkpoint, artifacts, over, Journal(tmp_path / "cut", {"key": 1}), kill)
    again = Journal(tmp_path / "cut", {"key": 1})
    assert (again.output_steps, again.blocks) == (steps, blocks)
    if steps == 7:  # all of them, none of which is done again
        monkeypatch.delattr("phiquant.calibration.fisher._Run")
    calibrate(checkpoint, artifacts, over, again, ignore)
    for one in artifacts:
        for row in every_row(one):
            if row.role.is_norm:
                continue
            layout = one.grid(row).layout(row.shape)
            first = whole.parts(one.name, row.output, layout)
            second = again.parts(one.name, row.output, layout)
            for name in layout:
                assert np.array_equal(first[name], second[name]), (row.source, name)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("method", [Method(), Method(output_damping=None)])
def test_the_work_told_is_the_work_that_was_counted(tmp_path, monkeypatch, method, tied):
    monkeypatch.setattr("phiquant.calibration.cost.GIGA", 1)
    checkpoint = model(tmp_path / "model", tie_word_embeddings=tied)
    tokens, artifacts, news = sample(checkpoint), wanted(checkpoint)[:1], []
    journal = Journal(tmp_path / "journal", {})
    calibrate(checkpoint, artifacts, Calibration(tokens, method), journal, news.append)
    cost = Cost(checkpoint.architecture, tokens.size, LENGTH, 1, method)
    done = [one.done for one in news]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-2:] == [cost.total - cost.ends(), cost.total]
    assert {one.total for one in news} == {cost.total}


def test_output_moments_change_every_matrix_but_an_embedding(tmp_path):
    checkpoint = model(tmp_path / "model")
    tokens, one = sample(checkpoint), wanted(checkpoint)[0]
    for name, method in {"both": Method(), "rows": Method(output_damping=None)}.items():
        journal = Journal(tmp_path / name, {})
        calibrate(checkpoint, [one], Calibration(tokens, method), journal, ignore)
    same = set()
    for row in every_row(one):
        layout = one.grid(row).layout(row.shape)
        if not row.role.is_norm:
            kept = [
                Journal(tmp_path / n, {}).parts(one.name, row.output, layout)
                for n in ("both", "rows")
            ]
            if all(np.array_equal(kept[0][part], kept[1][part]) for part in layout):
                same.add(row.role)
    assert same == {Role.EMBEDDING}


def test_the_disk_announced_for_the_run_there_and_back_is_what_it_takes(tmp_path):
    checkpoint = model(tmp_path / "model", intermediate_size=416)
    tokens = sample(checkpoint)
    journal = Journal(tmp_path / "journal", {})
    cost = FisherCost(checkpoint.architecture, tokens.size, LENGTH)
    states = []
    for _ in gather_output_moments(checkpoint, tokens, journal):
        states.append((tmp_path / "journal" / "states").stat().st_size)
    assert set(states) == {cost.states}
    moments = [path.stat().st_size for path in (tmp_path / "journal").glob("fisher.*")]
    assert cost.kept < sum(moments) < cost.kept + 200 * len(moments)


def test_a_journal_for_another_request_begins_anew(tmp_path):
    journal = Journal(tmp_path / "journal", {"text": "a"})
    journal.complete(3)
    journal.keep_factors({"layer": np.ones(4, np.float32)})
    assert Journal(tmp_path / "journal", {"text": "a"}).blocks == 3
    assert Journal(tmp_path / "journal", {"text": "a"}).factors() is not None
    assert Journal(tmp_path / "journal", {"text": "b"}).blocks == 0
    assert Journal(tmp_path / "journal", {"text": "b"}).factors() is None
    (tmp_path / "journal" / "journal.json").write_text("{broken")
    assert Journal(tmp_path / "journal", {"text": "a"}).blocks == 0
