import math

import numpy as np
import pytest

from phiquant.evaluation.bootstrap import Positions, estimate


def positions(divergence, **changes):
    divergence = np.asarray(divergence, float)
    losses = divergence[:-1] + 2
    return Positions(
        **(
            {
                "divergence": divergence,
                "agrees": (divergence < np.median(divergence)).astype(float),
                "reference_loss": losses,
                "candidate_loss": losses + 0.1,
            }
            | changes
        )
    )


def test_the_error_of_a_mean_of_independent_values_is_the_textbooks():
    values = np.random.default_rng(0).exponential(size=(100, 50))
    estimated = estimate([positions(row) for row in values])
    assert estimated.mean.value == pytest.approx(values.mean())
    assert estimated.mean.error == pytest.approx(values.std() / math.sqrt(values.size), rel=0.15)
    # Half of all: p (1 - p) = 1/4 in each window, without variance between the windows.
    assert estimated.top1_agreement.value == 0.5
    assert estimated.top1_agreement.error == pytest.approx(0, abs=1e-12)


def test_few_blocks_do_not_flatter():
    estimated = estimate([positions(np.full(3, 1.0)), positions(np.full(3, 5.0))])
    # s / sqrt(2) with s ** 2 = ((1 - 3) ** 2 + (5 - 3) ** 2) / (2 - 1)
    assert estimated.mean.error == pytest.approx(2.0, rel=0.1)


def test_the_error_of_a_median_is_the_textbooks():
    values = np.random.default_rng(1).exponential(size=(200, 40))
    estimated = estimate([positions(row) for row in values])
    density = 0.5  # of the exponential distribution at its median
    assert estimated.median.value == pytest.approx(math.log(2), abs=0.05)
    assert estimated.median.error == pytest.approx(0.5 / density / math.sqrt(values.size), rel=0.25)


def test_correlation_within_blocks_is_seen():
    levels = np.random.default_rng(2).exponential(size=50)
    estimated = estimate([positions(np.full(64, level)) for level in levels])
    honest = levels.std(ddof=1) / math.sqrt(50)
    assert estimated.mean.error == pytest.approx(honest, rel=0.1)


def test_the_errors_cover_as_often_as_they_should():
    hits = 0
    for seed in range(50):
        values = np.random.default_rng(seed).exponential(size=(6, 256))
        mean = estimate([positions(row) for row in values]).mean
        hits += abs(mean.value - 1) < 2 * mean.error
    assert 42 <= hits <= 50


def test_the_ratio_is_paired():
    values = np.random.default_rng(3).exponential(size=(64, 32))
    estimated = estimate([positions(row) for row in values])
    assert estimated.perplexity_ratio.value == pytest.approx(math.exp(0.1))
    assert estimated.perplexity_ratio.error == pytest.approx(0, abs=1e-12)
    assert estimated.candidate_perplexity.error > 0.01


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 1000, 1001])
def test_quantiles_are_values_that_occurred(count):
    values = np.random.default_rng(count).permutation(count).astype(float)
    estimated = estimate([positions(values)])
    for share, figure in (
        (0.5, estimated.median),
        (0.99, estimated.quantile_99),
        (0.999, estimated.quantile_999),
        (1, estimated.maximum),
    ):
        by_counting = min(v for v in values if (values <= v).sum() >= share * count - 1e-9)
        assert figure.value == by_counting


def test_a_text_of_one_block_has_no_known_error():
    estimated = estimate([positions(np.arange(20.0))])
    assert math.isnan(estimated.mean.error)
    assert estimated.mean.value == 9.5


def test_a_long_single_window_is_cut_into_blocks():
    values = np.random.default_rng(4).exponential(size=3200)
    estimated = estimate([positions(values)])
    assert estimated.mean.error == pytest.approx(values.std() / math.sqrt(3200), rel=0.4)


def test_an_infinity_in_one_block_leaves_the_others_to_the_median():
    values = np.random.default_rng(5).exponential(size=(40, 30))
    values[7, 3] = np.inf
    estimated = estimate([positions(row) for row in values])
    assert estimated.mean.value == estimated.maximum.value == math.inf
    assert math.isnan(estimated.mean.error)
    assert math.isfinite(estimated.median.value)
    assert estimated.median.error > 0


def test_the_same_text_gives_the_same_errors():
    windows = [positions(np.random.default_rng(6).exponential(size=500))]
    assert estimate(windows) == estimate(windows)
