import json
import math
import tracemalloc

import numpy as np
import pytest

from phiquant.errors import InputError
from phiquant.evaluation.metrics import DivergenceMeter


def window(seed, tokens=40, vocabulary=23, noise=0.3, scale=3.0):
    rng = np.random.default_rng(seed)
    reference = (rng.standard_normal((tokens, vocabulary)) * scale).astype(np.float32)
    candidate = reference + (rng.standard_normal(reference.shape) * noise).astype(np.float32)
    return reference, candidate, rng.integers(0, vocabulary, tokens).astype(np.int32)


def measure(*windows):
    meter = DivergenceMeter()
    for each in windows:
        meter.add(*each)
    return meter.result()


def slow_log_softmax(row):
    """By definition, one number at a time, summed exactly."""
    top = max(map(float, row))
    total = math.log(math.fsum(math.exp(float(x) - top) for x in row))
    return [float(x) - top - total for x in row]


def slow(windows):
    """All per-position figures with loops and math.fsum."""
    kl, agrees, losses = [], [], []
    for reference, candidate, tokens in windows:
        for i in range(len(tokens)):
            p, q = slow_log_softmax(reference[i]), slow_log_softmax(candidate[i])
            kl.append(math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
            agrees.append(p.index(max(p)) == q.index(max(q)))
            if i + 1 < len(tokens):
                losses.append((-p[tokens[i + 1]], -q[tokens[i + 1]]))
    return np.array(kl), np.array(agrees), np.array(losses)


def test_figures_equal_slow_loops_over_windows_of_unequal_length():
    windows = [window(0), window(1, tokens=1), window(2, tokens=77), window(3, tokens=2)]
    measured = measure(*windows)
    kl, agrees, losses = slow(windows)
    assert measured.positions == 120
    assert measured.predictions == 116
    assert measured.non_finite == 0
    assert measured.mean.value == pytest.approx(kl.mean(), rel=1e-12)
    for share, figure in (
        (0.5, measured.median),
        (0.99, measured.quantile_99),
        (0.999, measured.quantile_999),
        (1.0, measured.maximum),
    ):
        expected = np.quantile(kl, share, method="inverted_cdf")
        assert figure.value == pytest.approx(expected, rel=1e-11)
    assert 0 < measured.top1_agreement.value < 1
    assert measured.top1_agreement.value == pytest.approx(agrees.mean())
    means = losses.mean(axis=0)
    assert measured.reference_perplexity.value == pytest.approx(math.exp(means[0]))
    assert measured.candidate_perplexity.value == pytest.approx(math.exp(means[1]))
    assert measured.perplexity_ratio.value == pytest.approx(math.exp(means[1] - means[0]))


def test_two_tokens_in_closed_form():
    p, q = 0.8, 0.3
    reference = np.log(np.array([[p, 1 - p]] * 2)).astype(np.float32)
    candidate = (np.log(np.array([[q, 1 - q]] * 2)) + 7).astype(np.float32)
    measured = measure((reference, candidate, np.array([0, 0], np.int32)))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert measured.mean.value == pytest.approx(expected, rel=1e-6)
    assert measured.median.value == measured.maximum.value == pytest.approx(expected, rel=1e-6)
    assert measured.reference_perplexity.value == pytest.approx(1 / p, rel=1e-6)
    assert measured.candidate_perplexity.value == pytest.approx(1 / q, rel=1e-6)
    assert measured.top1_agreement.value == 0


def test_a_uniform_candidate_is_as_far_as_the_reference_is_short_of_full_entropy():
    reference, candidate, tokens = window(4)
    measured = measure((reference, np.zeros_like(candidate), tokens))
    shares = [np.exp(slow_log_softmax(row)) for row in reference]
    entropy = np.mean([-(p * np.log(p)).sum() for p in shares])
    assert measured.mean.value == pytest.approx(math.log(23) - entropy, rel=1e-12)
    assert measured.candidate_perplexity.value == pytest.approx(23)


def test_equal_logits_are_exactly_zero_apart():
    reference, _, tokens = window(5, tokens=70, scale=30)
    measured = measure((reference, reference.copy(), tokens))
    for figure in (measured.mean, measured.median, measured.quantile_999, measured.maximum):
        assert figure.value == 0 == figure.error
    assert measured.top1_agreement.value == 1
    assert measured.perplexity_ratio.value == 1


@pytest.mark.parametrize("noise", [1e-4, 1e-3])
def test_small_divergences_are_not_lost_in_rounding(noise):
    # For small noise D is half the variance of the logits' difference under p.
    reference, candidate, tokens = window(6, tokens=50, noise=noise)
    kl = []
    for a, b in zip(reference.astype(float), candidate.astype(float), strict=True):
        p = np.exp(slow_log_softmax(a))
        d = a - b
        kl.append(0.5 * ((p * d**2).sum() - (p * d).sum() ** 2))
    assert measure((reference, candidate, tokens)).mean.value == pytest.approx(
        np.mean(kl), rel=0.01
    )


def test_huge_logits_neither_overflow_nor_warn():
    reference = np.array([[3e38, -3e38, 0], [0, 1, 2]], np.float32)
    measured = measure((reference, reference[:, ::-1].copy(), np.array([0, 2], np.int32)))
    assert measured.non_finite == 0
    assert measured.maximum.value == pytest.approx(3e38, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_logits_of_the_candidate_count_against_it(value):
    reference, candidate, tokens = window(7, tokens=100)
    sound = measure((reference, candidate, tokens))
    candidate[[3, 50, 99], [0, 5, 22]] = value
    measured = measure((reference, candidate, tokens))
    assert measured.non_finite == 3
    assert measured.positions == 100
    assert measured.mean.value == measured.maximum.value == measured.quantile_99.value == math.inf
    assert measured.candidate_perplexity.value == measured.perplexity_ratio.value == math.inf
    assert math.isfinite(measured.median.value)
    assert measured.median.value >= sound.median.value
    assert measured.top1_agreement.value <= sound.top1_agreement.value
    assert measured.reference_perplexity == sound.reference_perplexity
    assert math.isnan(measured.mean.error)
    shown = json.loads(json.dumps(measured.as_json(), allow_nan=False))
    assert shown["mean"] == {"value": None, "error": None}
    assert shown["non_finite"] == 3
    assert shown["median"]["value"] == measured.median.value


def test_a_reference_that_is_not_finite_is_refused():
    reference, candidate, tokens = window(8)
    reference[4, 4] = np.nan
    with pytest.raises(InputError, match="position 4"):
        DivergenceMeter().add(reference, candidate, tokens)


def test_what_does_not_belong_together_is_refused():
    reference, candidate, tokens = window(9)
    meter = DivergenceMeter()
    for wrong in (
        (reference, candidate[:, :-1], tokens),
        (reference, candidate, tokens[:-1]),
        (reference, candidate, tokens + 23),
        (reference[:0], candidate[:0], tokens[:0]),
    ):
        with pytest.raises(InputError):
            meter.add(*wrong)
    with pytest.raises(InputError, match="two tokens"):
        meter.result()
    with pytest.raises(InputError, match="two tokens"):
        measure(window(9, tokens=1))


def test_a_large_vocabulary_takes_a_few_rows_of_memory():
    """Which is what makes it quick: no array of a whole window is made beside the two given."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((64, 49152), dtype=np.float32) * 3
    candidate = reference + 0.1
    tokens = np.zeros(64, np.int32)
    meter = DivergenceMeter()
    tracemalloc.start()
    try:
        meter.add(reference, candidate, tokens)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    row = 8 * 49152  # bytes of float64
    assert 3 * row < peak < 5 * row
