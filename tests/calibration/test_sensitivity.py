"""Measured and predicted effects against rounding one matrix and running the whole network."""

import numpy as np
import pytest

from phiquant.calibration.analysis import ANCHOR, analyse
from phiquant.calibration.anchor import Anchor
from phiquant.calibration.divergence import Candidates, divergences
from phiquant.calibration.sensitivity import grid_errors, sampled_rows
from phiquant.calibration.wavefront import Wavefront
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.reference import Reference
from phiquant.targets.table import target
from tiny_models import longrope, tiny_config, tiny_weights, write_tiny_checkpoint

WIDTHS = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}


class Replaced:
    """A source with some weights replaced."""

    def __init__(self, source, weights):
        self.architecture = source.architecture
        self.source, self.weights = source, weights

    def weight(self, name, first=0, last=None):
        if name in self.weights:
            return self.weights[name][first:last]
        return self.source.weight(name, first, last)


def some_windows(count=3, length=40, seed=2):
    random = np.random.default_rng(seed)
    return [random.integers(0, 512, length).astype(np.int32) for _ in range(count)]


def divergence(source, other, windows):
    """The mean divergence in nats, in float64, from whole logits."""

    def log_shares(one):
        hidden = np.concatenate(Reference(one).hidden_states(windows))
        logits = Reference(one).head(hidden).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    left, right = log_shares(source), log_shares(other)
    return float((np.exp(left) * (left - right)).sum(axis=1).mean())


def tiny(directory, **features):
    """A checkpoint whose logits vary by some units, also where the embedding is the head."""
    features = WIDTHS | features
    weights = tiny_weights(tiny_config(**features), seed=1)
    weights["model.embed_tokens.weight"] *= 0.15
    return Checkpoint.open(
        write_tiny_checkpoint(directory, dtype="F32", weights=weights, **features)
    )


def replaced(source, part, rounded):
    """The network with the rows of `part` in place of its own."""
    whole = source.weight(part.weight.name).copy()
    whole[part.first : part.last] = rounded
    return Replaced(source, {part.weight.name: whole})


def rows_of(source, part):
    return source.weight(part.weight.name, part.first, part.last)


@pytest.mark.parametrize(
    ("features", "logits"),
    [
        pytest.param({"tie_word_embeddings": True}, 250 * 100, marks=pytest.mark.long),
        ({"tie_word_embeddings": False, "sliding_window": 7}, 70 * 100),
        ({"tie_word_embeddings": True, **longrope(32, original=32)}, 250 * 100),
    ],
    ids=["tied", "untied with a window, some tokens at a time", "across LongRoPE's boundary"],
)
def test_every_variant_is_the_network_with_one_matrix_rounded(
    tmp_path, features, logits, monkeypatch
):
    monkeypatch.setattr("phiquant.calibration.wavefront.CHUNK_TOKENS", 300)
    monkeypatch.setattr("phiquant.calibration.divergence.LOGITS", logits)
    monkeypatch.setattr("phiquant.phi.weights.BAND_WEIGHTS", 128 * 100)
    source = tiny(tmp_path / "m", **features)
    windows = some_windows()
    anchors = (Anchor(3), Anchor(5, 64))
    front = Wavefront(source, windows, anchors)
    nats = front.run(lambda name, inputs: None, lambda work: None)
    assert nats.shape == (2 * len(source.architecture.network.matrices), 120)
    assert len(front.variants) == len(nats)
    for variant, measured in zip(front.variants, nats.mean(axis=1), strict=True):
        rounded = variant.anchor.rounded(rows_of(source, variant.part))
        expected = divergence(source, replaced(source, variant.part, rounded), windows)
        assert measured == pytest.approx(expected, rel=2e-2), variant
        assert expected > 1e-5


def test_small_divergences_are_not_lost_in_rounding():
    """A variant whose logits differ by a millionth: the quadratic form gives what it should be."""

    class Head:
        class architecture:  # noqa: N801
            vocabulary_size, head_name = 4000, "head"

        def weight(self, name, first, last):
            return table[first:last]

    random = np.random.default_rng(0)
    table = random.normal(0, 1, (4000, 32)).astype(np.float32)
    hidden = random.normal(0, 0.3, (20, 32)).astype(np.float32)
    moved = hidden.astype(np.float64) + 1e-3 * random.normal(0, 1, hidden.shape)
    source = Head()
    measured = divergences(source, hidden, Candidates(moved.astype(np.float32)[None], [source]))
    logits = hidden.astype(np.float64) @ table.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shift = (moved.astype(np.float32) - hidden.astype(np.float64)) @ table.T
    mean = (shares * shift).sum(axis=1)
    expected = ((shares * shift**2).sum(axis=1) - mean**2) / 2
    assert expected.max() < 1e-4
    assert measured[0] == pytest.approx(expected, rel=2e-2)


def test_the_anchor_holds_zero_and_both_ends():
    weights = np.array([[-1.0, 0.0, 2.0, 0.7, 3.0, 0.1], [0.0] * 6], np.float32)
    rounded = Anchor(2, 4).rounded(weights)
    assert rounded.tolist()[0] == pytest.approx([-1, 0, 2, 1, 3, 0])
    assert rounded[1].tolist() == [0.0] * 6
    assert np.array_equal(ANCHOR.rounded(weights[:, :5]), Anchor(4).rounded(weights[:, :5]))


GRIDS = [
    ("gguf", "Q4_0"),
    ("gguf", "Q5_1"),
    ("gguf", "Q8_0"),
    ("mlx", "3bit-g64 F32"),
    ("mlx", "6bit-g32 F32"),
    ("onnx", "int4-b16-sym F32"),
    ("openvino", "u8 channel"),
]


def test_effects_follow_the_law(tmp_path):
    """From 3 to 8 bits: each within a factor of 1.7, and half of all within a fifth."""
    source = tiny(tmp_path / "m", tie_word_embeddings=True, num_hidden_layers=2)
    windows = some_windows(4, 64)
    analysis = analyse(source, windows, sensitivities=True)
    assert analysis.sensitivities.keys() == {
        part.name for part in source.architecture.network.matrices
    }
    ratios = []
    for part in source.architecture.network.matrices:
        whole = rows_of(source, part)
        grids = {name: target(of).grids[name] for of, name in GRIDS}
        rows = sampled_rows(source, part)
        errors = grid_errors(rows, analysis.inputs[part.weight.name].squares, grids)
        for name, grid in grids.items():
            rounded = grid.decode(grid.encode(whole), whole.shape[1])
            actual = divergence(source, replaced(source, part, rounded), windows)
            ratios.append(analysis.sensitivities[part.name].effect(errors[name]) / actual)
    assert 1 / 1.7 < min(ratios) < max(ratios) < 1.7, sorted(ratios)
    assert np.median(np.abs(np.log(ratios))) < np.log(1.2)


@pytest.mark.parametrize(("of", "name"), [("gguf", "Q5_0"), ("openvino", "u4 g32")])
def test_effects_add_up(tmp_path, of, name):
    source = tiny(tmp_path / "m", tie_word_embeddings=True)
    windows = some_windows(4, 64)
    analysis = analyse(source, windows, sensitivities=True)
    grid = target(of).grids[name]
    rounded, total = {}, 0.0
    for part in source.architecture.network.matrices:
        rows, fused = sampled_rows(source, part), part.weight.name
        (error,) = grid_errors(rows, analysis.inputs[fused].squares, {name: grid}).values()
        total += analysis.sensitivities[part.name].effect(error)
        whole = source.weight(fused)
        rounded[fused] = grid.decode(grid.encode(whole), whole.shape[1])
    joint = divergence(source, Replaced(source, rounded), windows)
    assert total == pytest.approx(joint, rel=0.3)


def test_sampled_rows_are_the_matrixs_own_and_spread_over_it(tmp_path):
    source = tiny(tmp_path / "m", intermediate_size=384)
    part = next(one for one in source.architecture.network.matrices if "up_proj" in one.name)
    whole = rows_of(source, part)
    rows = sampled_rows(source, part)
    assert rows.shape == (256, 128)
    places = [int(np.flatnonzero((whole == row).all(axis=1))[0]) for row in rows]
    assert places == sorted(places)
    assert places[0] == 0
    assert places[-1] == len(whole) - 1
