"""Re-parametrisations change every weight and not the function."""

import numpy as np
import pytest

from phiquant.phi.config import read_architecture
from phiquant.phi.reference import Reference
from phiquant.quantization.equivalence import fold_norms, rescale_channels, rotate_residual
from tiny_models import InMemory, longrope, tiny_config, tiny_weights


def logits(architecture, weights):
    tokens = np.random.default_rng(1).integers(0, architecture.vocabulary_size, 40)
    return Reference(InMemory(architecture, weights)).logits(tokens.astype(np.int32))


CONFIGS = {
    "tied, full heads": tiny_config(tie_word_embeddings=True, num_key_value_heads=4),
    "untied, grouped heads, LongRoPE": tiny_config(
        num_key_value_heads=1, partial_rotary_factor=0.5, **longrope(8, original=32)
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_rescaling(config):
    architecture, weights = read_architecture(config), tiny_weights(config)
    before = {name: values.copy() for name, values in weights.items()}
    rescale_channels(weights, architecture, np.random.default_rng(0), 0.35)
    changed = {name for name in weights if not np.array_equal(weights[name], before[name])}
    kept = {"model.embed_tokens.weight"} | (
        {"model.norm.weight"} if architecture.tied_head else set()
    )
    assert changed == weights.keys() - kept
    expected = logits(architecture, before)
    np.testing.assert_allclose(
        logits(architecture, weights), expected, atol=2e-5 * abs(expected).max()
    )


def test_folding_and_rotating():
    config = CONFIGS["untied, grouped heads, LongRoPE"]
    architecture, weights = read_architecture(config), tiny_weights(config)
    before = {name: values.copy() for name, values in weights.items()}
    with pytest.raises(ValueError, match="fold"):
        rotate_residual(weights, architecture, np.random.default_rng(0))
    weights = {name: values.copy() for name, values in before.items()}
    fold_norms(weights, architecture)
    rotate_residual(weights, architecture, np.random.default_rng(0))
    changed = {name for name in weights if not np.array_equal(weights[name], before[name])}
    assert changed == weights.keys()
    expected = logits(architecture, before)
    np.testing.assert_allclose(
        logits(architecture, weights), expected, atol=2e-5 * abs(expected).max()
    )


def test_a_tied_head_cannot_take_the_final_norm():
    config = CONFIGS["tied, full heads"]
    with pytest.raises(ValueError, match="head of its own"):
        fold_norms(tiny_weights(config), read_architecture(config))
