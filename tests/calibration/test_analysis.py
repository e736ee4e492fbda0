"""The analysis against a network written out in a few lines of its own."""

import numpy as np
import pytest

from phiquant.calibration.analysis import analyse, analysis_windows
from phiquant.phi.checkpoint import Checkpoint
from phiquant.phi.family import family
from phiquant.phi.reference import Reference
from tiny_models import tiny_config, tiny_weights, write_tiny_checkpoint


def some_windows(count=3, length=17, seed=2):
    random = np.random.default_rng(seed)
    return [random.integers(0, 512, length).astype(np.int32) for _ in range(count)]


def normed(x, gains):
    return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-5) * gains


@pytest.mark.parametrize("tied", [False, True])
def test_inputs_are_known_by_means_and_mean_squares(tmp_path, tied):
    changes = {"tie_word_embeddings": tied, "num_hidden_layers": 1}
    weights = tiny_weights(tiny_config(**changes), seed=4)
    source = Checkpoint.open(
        write_tiny_checkpoint(tmp_path / "m", dtype="F32", weights=weights, **changes)
    )
    windows = some_windows()
    seen = analyse(source, windows).inputs
    squares = {name: one.squares for name, one in seen.items()}
    matrices = {name for name, values in weights.items() if values.ndim == 2}
    assert squares.keys() == matrices - ({"model.embed_tokens.weight"} if not tied else set())
    assert all(squares[name].shape == (weights[name].shape[1],) for name in squares)

    hidden = weights["model.embed_tokens.weight"][np.concatenate(windows)].astype(np.float64)
    inputs = normed(hidden, weights["model.layers.0.input_layernorm.weight"])
    expected = np.mean(inputs**2, axis=0)
    assert squares["model.layers.0.self_attn.qkv_proj.weight"] == pytest.approx(expected, rel=1e-5)
    means = seen["model.layers.0.self_attn.qkv_proj.weight"].means
    assert means == pytest.approx(np.mean(inputs, axis=0), rel=1e-4, abs=1e-6)
    final = np.concatenate(Reference(source).hidden_states(windows)).astype(np.float64)
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    assert squares[head] == pytest.approx(np.mean(final**2, axis=0), rel=1e-5)


def test_every_step_of_a_block_is_seen_with_its_own_inputs(tmp_path):
    """With an identity for a matrix, its outputs are its inputs: those of the next step."""
    source = Checkpoint.open(write_tiny_checkpoint(tmp_path / "m"))
    seen = {}
    reference = Reference(source, observe=lambda name, inputs: seen.setdefault(name, inputs.copy()))
    windows = some_windows(2)
    hidden, stack = reference.embedded(windows)
    before = hidden.copy()
    reference.layer(0, hidden, stack)
    at = "model.layers.0"
    attended = (
        seen[f"{at}.self_attn.o_proj.weight"] @ source.weight(f"{at}.self_attn.o_proj.weight").T
    )
    middle = before + attended
    gains = source.weight(f"{at}.post_attention_layernorm.weight")
    assert np.allclose(seen[f"{at}.mlp.gate_up_proj.weight"], normed(middle, gains), atol=1e-5)
    down = seen[f"{at}.mlp.down_proj.weight"] @ source.weight(f"{at}.mlp.down_proj.weight").T
    assert np.allclose(hidden, middle + down, atol=1e-5)


def test_windows_repeated_go_through_a_layer_like_the_ones_they_repeat(tmp_path):
    source = Checkpoint.open(write_tiny_checkpoint(tmp_path / "m"))
    reference = Reference(source)
    once, stack = reference.embedded([*some_windows(2), some_windows(1, 5)[0]])
    twice = np.concatenate([once, once])
    reference.layer(0, once, stack)
    reference.layer(0, twice, stack.repeated(2))
    assert np.allclose(twice[: len(once)], once, atol=1e-6)
    assert np.allclose(twice[len(once) :], once, atol=1e-6)


def test_progress_ends_where_it_was_said_to_end(tmp_path):
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    source = Checkpoint.open(write_tiny_checkpoint(tmp_path / "m", vocab_size=4096, **shape))
    for measured in (False, True):
        seen = []
        analyse(source, some_windows(4, 200), seen.append, sensitivities=measured)
        done = [progress.done for progress in seen]
        assert done == sorted(done)
        assert done[-1] == seen[-1].total > 0
        assert len({progress.total for progress in seen}) == 1


def test_no_published_model_is_judged_by_a_single_window():
    assert all(analysis_windows(one.architecture) >= 2 for one in family().values())
