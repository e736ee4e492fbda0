"""The run there and back, against finite differences of a slow network in float64."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

from phiquant.calibration import fisher
from phiquant.calibration.fisher import OutputMoments, gather_output_moments
from phiquant.calibration.journal import Journal
from phiquant.calibration.sampled_labels import label_gradient
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.network import attention_gradient
from phiquant.phi.network.attention_gradient import attend_backward
from phiquant.phi.network.held_block import HeldBlock
from phiquant.phi.network.parts import Role
from phiquant.phi.network.rope import frequencies
from tiny_models import longrope, write_tiny_checkpoint

SMALL = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "vocab_size": 40,
    "num_hidden_layers": 2,
}
FEATURES = {
    "grouped heads": {},
    "partial rotary": {"partial_rotary_factor": 0.5},
    "a window": {"sliding_window": 3, "num_key_value_heads": 3},
    "tied": {"tie_word_embeddings": True},
    "LongRoPE, short": longrope(8, original=7),
    "LongRoPE, long": longrope(8, original=5) | {"sliding_window": 4},
}
LENGTH = 6


def model(directory, **changes):
    return Checkpoint.open(write_tiny_checkpoint(directory, dtype="F32", **(SMALL | changes)))


class Slow:
    """A network in float64, by its definition; `moves` are added to the outputs of layers."""

    def __init__(self, source):
        self.model = source.architecture
        self.weights = {w.name: source.weight(w.name).astype(float) for w in self.model.weights()}

    def norm(self, x, name):
        scale = np.sqrt((x**2).mean(-1, keepdims=True) + self.model.norm_epsilon)
        return x / scale * self.weights[name]

    def turn(self, x):
        """x (..., tokens, heads, size)."""
        rope = self.model.rope
        angles = np.arange(x.shape[-3])[:, None] * frequencies(rope, x.shape[-3]).astype(float)
        factor = rope.long.attention_factor if rope.long else 1.0
        turns = np.exp(1j * angles)[:, None] * factor
        half = turns.shape[-1]
        pairs = (x[..., :half] + 1j * x[..., half : 2 * half]) * turns
        return np.concatenate([pairs.real, pairs.imag, x[..., 2 * half :]], -1)

    def attend(self, fused):
        model, tokens = self.model, fused.shape[-2]
        split = fused.reshape(*fused.shape[:-1], -1, model.head_size)
        q, k, v = np.split(split, [model.heads, model.heads + model.kv_heads], -2)
        k, v = (np.repeat(part, model.heads // model.kv_heads, -2) for part in (self.turn(k), v))
        scores = np.einsum("...ihd,...jhd->...hij", self.turn(q), k) / model.head_size**0.5
        ages = np.arange(tokens)[:, None] - np.arange(tokens)
        hidden = (ages < 0) | (ages >= (model.sliding_window or tokens))
        shares = np.exp(np.where(hidden, -np.inf, scores))
        shares /= shares.sum(-1, keepdims=True)
        return np.einsum("...hij,...jhd->...ihd", shares, v).reshape(*fused.shape[:-1], -1)

    def layer(self, layer, h, moves):
        def linear(name, x):
            name = f"model.layers.{layer}.{name}.weight"
            return x @ self.weights[name].T + moves.get(name, 0)

        at = f"model.layers.{layer}"
        fused = linear("self_attn.qkv_proj", self.norm(h, f"{at}.input_layernorm.weight"))
        h = h + linear("self_attn.o_proj", self.attend(fused))
        x = linear("mlp.gate_up_proj", self.norm(h, f"{at}.post_attention_layernorm.weight"))
        gate, up = np.split(x, 2, -1)
        return h + linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * up)

    def log_shares(self, ids, moves):
        h = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.model.layers):
            h = self.layer(layer, h, moves)
        logits = self.norm(h, "model.norm.weight") @ self.weights[self.model.head_name].T
        logits = logits - logits.max(-1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def gradients(loss, name, shape, step=1e-5):
    """d loss / d outputs of a layer, (tokens, rows): two runs an output, all in one batch."""
    count = int(np.prod(shape))
    moves = step * np.eye(count).reshape(count, *shape)
    return ((loss({name: moves}) - loss({name: -moves})) / (2 * step)).reshape(shape)


def labels_of(log_shares, draws):
    sums = np.exp(log_shares).cumsum(-1)
    return np.array([np.searchsorted(row, u) for row, u in zip(sums, draws, strict=True)])


@pytest.mark.parametrize("changes", FEATURES.values(), ids=FEATURES)
def test_output_moments_are_those_of_finite_differences(tmp_path, monkeypatch, changes):
    monkeypatch.setattr(fisher, "ROWS", 10)
    monkeypatch.setattr(fisher, "CHUNK_TOKENS", 2 * LENGTH)  # two chunks, the last one short
    monkeypatch.setattr("phiquant.phi.weights.BAND_WEIGHTS", 24 * 7)
    source = model(tmp_path / "model", **changes)
    tokens = np.random.default_rng(4).integers(0, 40, (3, LENGTH)).astype(np.int32)
    journal = Journal(tmp_path / "journal", {})
    ways = list(gather_output_moments(source, tokens, journal))
    assert ways == ["forward", "forward", "head", "backward", "backward"]
    slow = Slow(source)
    draws = np.random.default_rng(fisher.SEED).random(tokens.size).reshape(tokens.shape)

    def loss(moves, ids, labels):
        return -slow.log_shares(ids, moves)[..., np.arange(LENGTH), labels].sum(-1)

    for weight in source.architecture.weights():
        if weight.layer is None or weight.role.is_norm:
            continue
        rows = weight.shape[0]
        measured = []
        for ids, own in zip(tokens, draws, strict=True):
            labels = labels_of(slow.log_shares(ids, {}), own)
            of_labels = partial(loss, ids=ids, labels=labels)
            measured.append(gradients(of_labels, weight.name, (LENGTH, rows)))
        g = np.concatenate(measured)
        blocks = journal.output_moments(weight.name)
        assert blocks.shape == (-(-rows // 10), 10, 10)
        for index, block in enumerate(blocks):
            part = g[:, 10 * index : 10 * index + 10]
            expected = np.zeros((10, 10))
            for row in part:
                width = len(row)
                expected[:width, :width] += np.outer(row, row) / len(part)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(block, expected, atol=2e-4 * scale, err_msg=weight.name)
    assert not (journal.directory / "states").exists()


class KilledError(Exception):
    pass


# Two chunks forwards in each of two blocks, all tokens at the head, two chunks back in each block.
@pytest.mark.parametrize(("at", "steps"), [*enumerate([0, 0, 1, 1, 2, 3, 3, 4, 4], start=1)])
def test_a_run_that_was_killed_within_a_step_ends_the_same(tmp_path, monkeypatch, at, steps):
    monkeypatch.setattr(fisher, "CHUNK_TOKENS", 2 * LENGTH)
    source = model(tmp_path / "model")
    tokens = np.random.default_rng(4).integers(0, 40, (3, LENGTH)).astype(np.int32)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    list(gather_output_moments(source, tokens, Journal(whole, {})))
    calls = 0

    def killing(work):
        def run(*arguments):
            nonlocal calls
            calls += 1
            if calls == at:
                raise KilledError
            return work(*arguments)

        return run

    with monkeypatch.context() as patch:
        for of, name in [
            (HeldBlock, "outputs"),
            (fisher, "label_gradient"),
            (HeldBlock, "backward"),
        ]:
            patch.setattr(of, name, killing(getattr(of, name)))
        with pytest.raises(KilledError):
            list(gather_output_moments(source, tokens, Journal(cut, {})))
    assert Journal(cut, {}).output_steps == steps
    list(gather_output_moments(source, tokens, Journal(cut, {})))
    for path in whole.glob("fisher.*"):
        assert path.read_bytes() == (cut / path.name).read_bytes()


@pytest.mark.parametrize("changes", FEATURES.values(), ids=FEATURES)
def test_a_block_goes_back_through_what_it_went_forward(tmp_path, changes):
    source = model(tmp_path / "model", **changes)
    slow, random = Slow(source), np.random.default_rng(1)
    hidden, wanted = random.normal(size=(2, 2 * LENGTH, 24)).astype(np.float32)
    block = HeldBlock(source, 1, LENGTH)
    inside = block.inside(hidden)
    batch = hidden.reshape(2, LENGTH, 24).astype(float)
    expected = slow.layer(1, batch, {}).reshape(-1, 24)
    np.testing.assert_allclose(block.outputs(inside), expected, rtol=1e-4, atol=1e-5)
    seen = []
    gradients = block.backward(inside, wanted, lambda layer, _: seen.append(layer.weight.role))
    assert seen == [Role.DOWN, Role.GATE_UP, Role.ATTENTION_OUTPUT, Role.QKV]
    for _ in range(20):
        way = random.normal(size=batch.shape)
        ends = [slow.layer(1, batch + step * way, {}) for step in (1e-5, -1e-5)]
        slope = ((ends[0] - ends[1]) / 2e-5 * wanted.reshape(batch.shape)).sum()
        assert (gradients * way.reshape(-1, 24)).sum() == pytest.approx(slope, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("window", [None, 1, 9])
def test_attention_goes_back_alike_in_one_chunk_and_in_many(monkeypatch, window):
    random = np.random.default_rng(0)
    queries, gradient = random.normal(size=(2, 40, 6, 5)).astype(np.float32)
    keys, values = random.normal(size=(2, 40, 2, 5)).astype(np.float32)
    turned = queries, keys, values
    whole = attend_backward(turned, window, gradient.reshape(40, -1))
    monkeypatch.setattr(attention_gradient, "chunk_queries", lambda group, length: 7)
    pieces = attend_backward(turned, window, gradient.reshape(40, -1))
    for one, other, like in zip(whole, pieces, turned, strict=True):
        assert one.shape == like.shape
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("logits", [1, 3 * 700, 1 << 24])
def test_labels_are_drawn_from_the_models_distribution(monkeypatch, logits):
    monkeypatch.setattr("phiquant.phi.weights.BAND_WEIGHTS", 4 * 3)
    monkeypatch.setattr("phiquant.calibration.divergence.LOGITS", logits)

    class Head:
        class architecture:  # noqa: N801
            vocabulary_size, head_name = 11, "head"

        def weight(self, name, first, last):
            return table[first:last]

    random = np.random.default_rng(0)
    table = random.normal(size=(11, 4)).astype(np.float32)
    one = random.normal(size=4).astype(np.float32)
    draws = (np.arange(20000) + 0.5) / 20000
    gradient, labels = label_gradient(Head(), np.tile(one, (20000, 1)), draws)
    logits = table.astype(float) @ one
    shares = np.exp(logits) / np.exp(logits).sum()
    assert np.all(np.diff(labels) >= 0)
    np.testing.assert_allclose(np.bincount(labels, minlength=11) / 20000, shares, atol=1e-4)
    np.testing.assert_allclose(gradient, shares @ table - table[labels], atol=1e-5)
    _, last = label_gradient(Head(), one[None], np.array([np.nextafter(1, 0)]))
    assert last.tolist() == [10]


def test_the_moments_of_outputs_are_means_over_all_chunks():
    random = np.random.default_rng(2)
    gradient = random.normal(size=(30, 2 * fisher.ROWS + 5)).astype(np.float32)
    moments = OutputMoments(gradient.shape[1])
    moments.add(gradient[:11])
    moments.add(gradient[11:])
    assert moments.blocks.shape == (3, fisher.ROWS, fisher.ROWS)
    part = gradient[:, fisher.ROWS : 2 * fisher.ROWS].astype(float)
    np.testing.assert_allclose(moments.blocks[1], part.T @ part / 30, atol=1e-5)
    assert not moments.blocks[2, 5:].any()
    assert not moments.blocks[2, :, 5:].any()


def test_few_tokens_are_taken_and_one_sequence_at_least():
    assert len(fisher.taken(np.zeros((128, 512), np.int32))) == 16
    assert len(fisher.taken(np.zeros((3, 1 << 15), np.int32))) == 1


def test_no_more_logits_are_held_than_a_band_has_room_for(monkeypatch):
    """Many tokens before a large vocabulary: the memory is that of a few of them."""

    class Head:
        class architecture:  # noqa: N801
            vocabulary_size, head_name = 8192, "head"

        def weight(self, name, first, last):
            return table[first:last]

    monkeypatch.setattr("phiquant.calibration.divergence.LOGITS", 1 << 20)
    table = np.random.default_rng(1).normal(size=(8192, 16)).astype(np.float32)
    inputs = np.random.default_rng(2).normal(size=(2048, 16)).astype(np.float32)
    draws = np.random.default_rng(3).random(2048)
    tracemalloc.start()
    label_gradient(Head(), inputs, draws)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * inputs.shape[0] * table.shape[0] * 4
