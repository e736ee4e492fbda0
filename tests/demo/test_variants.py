"""What the variants of the demo model do to weights; test_smollm2 has the model itself."""

import numpy as np
import pytest

from phiquant.demo.variants import EMBEDDING, VARIANTS, moved

LAYER = "model.layers.0.mlp.down_proj.weight"


def weights():
    """Two matrices on grids of 15 and 255 steps a block, and a norm."""
    random = np.random.default_rng(5)
    made = {"model.norm.weight": np.linspace(1, 2, 8, dtype=np.float32)}
    for name, steps in ((LAYER, 15), (EMBEDDING, 255)):
        codes = random.integers(0, steps + 1, (6, 4, 32))
        codes[..., :2] = 0, steps
        scale = random.uniform(0.5, 2, (6, 4, 1))
        made[name] = (scale * codes).astype(np.float32).reshape(6, 128)
    return made


def changed(seed, noise):
    made = weights()
    moved(made, None, seed=seed, noise=noise)
    return made


def in_steps(before, after, steps):
    blocks = before.reshape(6, 4, 32)
    step = (blocks.max(2, keepdims=True) - blocks.min(2, keepdims=True)) / steps
    return (after.reshape(6, 4, 32) - blocks) / step


@pytest.mark.parametrize(
    ("noise", "spread", "most"), [("uniform", 0.289, 0.5001), ("normal", 0.35, 2)]
)
def test_weights_move_within_a_step_of_their_grid(noise, spread, most):
    before, after = weights(), changed(1, noise)
    for name, steps in ((LAYER, 15), (EMBEDDING, 255)):
        moves = in_steps(before[name], after[name], steps)
        assert np.abs(moves).max() <= most
        assert moves.std() == pytest.approx(spread, rel=0.08)
        assert abs(moves.mean()) < 0.03
        assert after[name].dtype == np.float32
    np.testing.assert_array_equal(after["model.norm.weight"], before["model.norm.weight"])


def test_a_seed_gives_the_same_weights_and_another_gives_others():
    one, again, other = (changed(seed, "uniform")[LAYER] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.99


def test_variants_that_are_moved_differ_in_their_noise():
    seeds = [
        variant.change.keywords["seed"] for name, variant in VARIANTS.items() if "moved" in name
    ]
    assert len(seeds) == len(set(seeds)) == 4
    assert [name for name, variant in VARIANTS.items() if variant.untied] == [
        "untied",
        "moved-untied",
    ]
