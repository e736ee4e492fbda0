"""Re-scaling leaves the function alone, is folded into norms and rows exactly, and evens out."""

import numpy as np
import pytest

from phiquant.calibration.input_sums import InputSums
from phiquant.phi.config import read_architecture
from phiquant.phi.network.parts import Role
from phiquant.phi.reference import Reference
from phiquant.quantization.inputs import Inputs
from phiquant.quantization.rescaling import WIDEST, Rescaled, even_factors
from phiquant.targets.gguf.grids import GRIDS
from tiny_models import InMemory, longrope, tiny_config, tiny_weights

CONFIGS = {
    "tied, full heads": tiny_config(tie_word_embeddings=True, num_key_value_heads=4),
    "untied, grouped heads, LongRoPE": tiny_config(
        num_key_value_heads=1, partial_rotary_factor=0.5, **longrope(8, original=32)
    ),
}


def network(config):
    return InMemory(read_architecture(config), tiny_weights(config))


def tokens(source, count=40):
    random = np.random.default_rng(1)
    return random.integers(0, source.architecture.vocabulary_size, count).astype(np.int32)


def inputs_of(source):
    sums = InputSums()
    assert list(sums.gather(source, [tokens(source)])) == [1]
    return sums.inputs()


@pytest.fixture(params=CONFIGS, name="source")
def _source(request):
    return network(CONFIGS[request.param])


def test_the_function_stays(source):
    rescaled = Rescaled(source, even_factors(source, inputs_of(source)))
    expected = Reference(source).logits(tokens(source))
    logits = Reference(rescaled).logits(tokens(source))
    np.testing.assert_allclose(logits, expected, atol=2e-5 * abs(expected).max())
    kept = {"model.embed_tokens.weight"}
    if source.architecture.tied_head:
        kept.add("model.norm.weight")
    for weight in source.architecture.weights():
        same = np.array_equal(rescaled.weight(weight.name), source.weight(weight.name))
        assert same == (weight.name in kept), weight.name


def test_gains_are_numbers_that_bfloat16_holds(source):
    rescaled = Rescaled(source, even_factors(source, inputs_of(source)))
    for weight in source.architecture.weights():
        if rescaled.gains(weight.name) is not None:
            gains = rescaled.weight(weight.name)
            assert not (gains.view(np.uint32) & np.uint32(0xFFFF)).any()


def test_factors_are_those_of_the_formula(source):
    seen = inputs_of(source)
    for name, factor in even_factors(source, seen).items():
        if name.endswith("o_proj.weight"):
            continue
        weight = source.weight(name).astype(np.float64)
        weight /= np.sqrt((weight**2).mean(axis=1, keepdims=True))
        columns, inputs = np.sqrt((weight**2).mean(axis=0)), np.sqrt(seen[name].squares)
        expected = [(c**3 / r) ** 0.25 for c, r in zip(columns, inputs, strict=True)]
        expected /= np.exp(np.mean(np.log(expected)))
        np.testing.assert_allclose(factor, expected, rtol=1e-3)


def test_rescaling_undoes_a_rescaling():
    config = CONFIGS["untied, grouped heads, LongRoPE"]
    source = network(config)
    first = Rescaled(source, even_factors(source, inputs_of(source)))
    random = np.random.default_rng(5)
    uneven = {
        weight.name: random.lognormal(0, 0.5, weight.shape[1]).astype(np.float32)
        for weight in source.architecture.weights()
        if weight.role in (Role.QKV, Role.GATE_UP, Role.DOWN, Role.HEAD)
    }
    disturbed = Rescaled(source, uneven)
    second = Rescaled(disturbed, even_factors(disturbed, inputs_of(disturbed)))
    for name, given in uneven.items():
        scale = first.weight(name) / second.weight(name)
        # Up to one factor for all columns of a row: rows have steps of their own.
        assert np.ptp(np.log(given)) > 1.5
        assert np.allclose(scale / scale[:, :1], 1, atol=0.15), name


def test_channels_that_are_dead_or_without_end_are_left_in_bounds():
    source = network(CONFIGS["untied, grouped heads, LongRoPE"])
    names = {(one.layer, one.role): one for one in source.architecture.weights()}
    down, norm = names[0, Role.DOWN].name, names[0, Role.FFN_NORM].name
    source.weights[down][:, 3] = 0
    source.weights[down][:, 5] *= 1e6
    source.weights[norm][2] = 0
    seen = inputs_of(source)
    seen[down].squares[7] = 0
    factors = even_factors(source, seen)
    rescaled = Rescaled(source, factors)
    for name, factor in factors.items():
        assert (factor >= 0.99 / WIDEST).all(), name
        assert (factor <= 1.01 * WIDEST).all(), name
    assert rescaled.weight(norm)[2] == 0
    for weight in source.architecture.weights():
        assert np.isfinite(rescaled.weight(weight.name)).all()
    expected = Reference(source).logits(tokens(source))
    logits = Reference(rescaled).logits(tokens(source))
    np.testing.assert_allclose(logits, expected, atol=1e-4 * abs(expected).max())


def test_bands_are_rows_of_the_whole(source):
    rescaled = Rescaled(source, even_factors(source, inputs_of(source)))
    for weight in source.architecture.weights():
        whole = rescaled.weight(weight.name)
        assert np.array_equal(rescaled.weight(weight.name, 5, 9), whole[5:9]), weight.name


def test_uneven_columns_lose_less_once_evened():
    """Against the loss of the same columns without any unevenness, which nothing can beat."""
    config = CONFIGS["tied, full heads"] | {"intermediate_size": 256}
    source = network(config)
    name = next(w.name for w in source.architecture.weights() if w.role is Role.DOWN)
    random = np.random.default_rng(2)
    even = random.normal(size=source.weights[name].shape).astype(np.float32)
    factors = random.lognormal(0, 0.6, even.shape[1]).astype(np.float32)
    source.weights[name] = even * factors
    seen = Inputs(1 / factors**2)

    def loss(weights, inputs):
        grid = GRIDS["Q4_0"]
        decoded = grid.decode(grid.encode(weights, inputs), weights.shape[1])
        return float((np.square(decoded - weights) @ inputs).sum())

    evened = Rescaled(source, even_factors(source, {name: seen}))
    columns = evened.fold(name).columns
    best = loss(even, np.ones(even.shape[1], np.float32))
    plain = loss(source.weights[name], seen.squares)
    lost = loss(evened.weight(name), seen.squares * columns**2)
    assert lost < 1.01 * best < 0.8 * plain
