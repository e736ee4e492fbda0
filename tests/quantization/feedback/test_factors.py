import numpy as np
import pytest

from phiquant.quantization.feedback.factors import BLOCK, damped, unit_upper


def moment_of(width, tokens=300):
    """Of inputs that go together, in channels as unlike as those of a real network."""
    random = np.random.default_rng(width)
    shared = random.normal(size=(tokens, 8)) @ random.normal(size=(8, width))
    inputs = (shared + random.normal(size=(tokens, width))) * np.exp(2 * random.normal(size=width))
    return (inputs.T @ inputs / tokens).astype(np.float32)


@pytest.mark.parametrize("width", [1, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 100])
def test_factors_are_those_of_one_cholesky_in_float64(width):
    moment = damped(moment_of(width), 0.03)
    factors, penalties = unit_upper(moment.copy())
    upper = np.linalg.cholesky(moment[::-1, ::-1].astype(np.float64))[::-1, ::-1]
    np.testing.assert_allclose(factors, upper / np.diagonal(upper), atol=2e-4)
    np.testing.assert_allclose(penalties, np.square(np.diagonal(upper)), rtol=1e-4)
    rebuilt = (factors * penalties) @ factors.T
    scale = np.sqrt(np.diagonal(moment))
    assert np.abs((rebuilt - moment) / scale / scale[:, None]).max() < 1e-5


def test_factors_are_upper_triangular_with_a_unit_diagonal():
    factors, _ = unit_upper(damped(moment_of(BLOCK + 40), 0.03))
    assert np.array_equal(factors, np.triu(factors))
    np.testing.assert_allclose(np.diagonal(factors), 1, rtol=1e-6)


@pytest.mark.parametrize("width", [8, BLOCK + 8])
def test_what_is_not_positive_definite_is_refused(width):
    moment = np.eye(width, dtype=np.float32)
    moment[0, 1] = moment[1, 0] = 2
    with pytest.raises(np.linalg.LinAlgError):
        unit_upper(moment)


def test_damping_adds_a_share_of_the_mean_to_the_diagonal_alone():
    moment = moment_of(6)
    expected = moment + np.diag(np.full(6, 0.1 * np.diagonal(moment).mean()))
    np.testing.assert_allclose(damped(moment, 0.1), expected, rtol=1e-6)
