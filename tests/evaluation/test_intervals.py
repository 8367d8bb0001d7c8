"""Intervals: against scipy's bootstrap, closed forms and their coverage."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap, norm

from retrieval_geometry.evaluation import (
    Interval,
    bootstrap_interval,
    intervals,
    paired_bootstrap_difference,
    query_draw_interval,
)


@pytest.fixture
def values() -> np.ndarray:
    return (np.random.default_rng(0).random(94) < 0.53).astype(float)


def test_bootstrap_agrees_with_scipy(values):
    ours = bootstrap_interval(values, n_resamples=20_000)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.011)  # one step of 1/94
    assert ours.high == pytest.approx(theirs.high, abs=0.011)


def test_bootstrap_of_a_mean_approaches_the_normal_interval():
    values = np.random.default_rng(0).exponential(size=2000)
    ours = bootstrap_interval(values, confidence=0.9, n_resamples=5000)
    half = norm.ppf(0.95) * values.std() / np.sqrt(2000)
    assert ours.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert ours.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    found = [bootstrap_interval(rng.normal(2, 1, 60), confidence=0.9, n_resamples=300) for _ in range(400)]
    assert np.mean([i.low <= 2 <= i.high for i in found]) == pytest.approx(0.9, abs=0.05)


def test_standard_error_of_the_papers_top_1_is_about_a_twentieth(values):
    # 94 queries and a share near one half: gaps below 0.1 are inside the noise ([geometric] Table 1).
    assert bootstrap_interval(values).width / (2 * 1.96) == pytest.approx(0.05, abs=0.01)


def test_seed_blocks_and_kinds_of_input(values, monkeypatch):
    spread = np.random.default_rng(0).random(94)
    once = bootstrap_interval(values, seed=3)
    assert (
        once
        == bootstrap_interval(torch.from_numpy(values), seed=3)
        == bootstrap_interval(values.tolist(), seed=3)
    )
    assert bootstrap_interval(spread, seed=3) != bootstrap_interval(spread, seed=4)
    monkeypatch.setattr(intervals, "DRAWS_BYTES", 8 * 94 * 7)
    assert once == bootstrap_interval(values, seed=3)


def test_wider_confidence_gives_a_wider_interval(values):
    narrow, wide = (bootstrap_interval(values, confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert narrow == Interval(narrow.value, narrow.low, narrow.high)


def test_equal_values_give_a_point():
    assert bootstrap_interval([1.0, 1.0, 1.0]) == (1.0, 1.0, 1.0)


def test_pairing_cancels_what_queries_have_in_common():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=80)
    a, b = difficulty + 0.2 + 0.05 * rng.normal(size=80), difficulty + 0.05 * rng.normal(size=80)
    paired = paired_bootstrap_difference(a, b)
    assert paired.value == pytest.approx(a.mean() - b.mean())
    assert paired.low > 0.15
    assert bootstrap_interval(a).low < bootstrap_interval(b).high  # unpaired intervals overlap
    assert paired.width < 0.2 * bootstrap_interval(a).width
    assert paired_bootstrap_difference(a, a) == (0.0, 0.0, 0.0)


def test_query_draws_have_the_quantiles_of_all_query_sets():
    # Three classes of four candidates: 6 x 6 x 6 query sets, listed.
    rng = np.random.default_rng(0)
    values, classes = rng.random(12), np.repeat([5, 7, 9], 4)
    pairs = [[np.mean(pair) for pair in combinations(group, 2)] for group in values.reshape(3, 4)]
    means = [(a + b + c) / 3 for a in pairs[0] for b in pairs[1] for c in pairs[2]]
    found = query_draw_interval(values, classes, n_draws=40_000, confidence=0.8)
    assert found.value == pytest.approx(np.mean(means))
    assert found.low == pytest.approx(np.quantile(means, 0.1), abs=0.01)
    assert found.high == pytest.approx(np.quantile(means, 0.9), abs=0.01)


def test_query_draws_have_the_variance_of_stratified_sampling():
    # Cochran, Sampling Techniques, stratified sampling: sum of s_c^2 / m (1 - m / n_c) over classes, / C^2.
    rng = np.random.default_rng(0)
    values, classes = (
        (rng.random(47 * 40) < np.repeat(rng.random(47), 40)).astype(float),
        np.repeat(np.arange(47), 40),
    )
    spread = values.reshape(47, 40).var(axis=1, ddof=1)
    error = np.sqrt((spread / 2 * (1 - 2 / 40)).sum()) / 47
    found = query_draw_interval(values, classes)
    assert found.value == pytest.approx(values.mean())
    assert found.width / (2 * 1.96) == pytest.approx(error, rel=0.05)


def test_query_draws_of_all_candidates_leave_nothing_to_chance(values):
    found = query_draw_interval(values, ["a"] * 47 + ["b"] * 47, per_class=47)
    assert found == pytest.approx((values.mean(),) * 3)


def test_query_draws_weigh_classes_equally_and_take_blocks(monkeypatch):
    values, classes = torch.tensor([0.0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert query_draw_interval(values, classes).value == pytest.approx(0.5)
    once = query_draw_interval([0.0, 1, 2, 3, 4, 5], classes)
    monkeypatch.setattr(intervals, "DRAWS_BYTES", 8 * 64)
    assert query_draw_interval([0.0, 1, 2, 3, 4, 5], classes) == once


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "values must be a list of numbers"),
        (lambda: bootstrap_interval([[0.1]]), "values must be a list of numbers"),
        (lambda: bootstrap_interval([0.1, float("nan")]), r"values\[1\] must be finite"),
        (lambda: bootstrap_interval([0.1], confidence=0), "confidence must be"),
        (lambda: bootstrap_interval([0.1], confidence=95), "confidence must be"),
        (lambda: bootstrap_interval([0.1], n_resamples=0), "n_resamples must be"),
        (lambda: paired_bootstrap_difference([0.1], [0.1, 0.2]), "same queries, got 1 and 2"),
        (lambda: paired_bootstrap_difference([0.1], [float("inf")]), r"b\[0\] must be finite"),
        (lambda: query_draw_interval([0.1, 0.2, 0.3], [0, 0, 1]), "class 1 has 1 candidate"),
        (lambda: query_draw_interval([0.1, 0.2], [0]), "classes must hold one label per value"),
        (lambda: query_draw_interval([0.1, 0.2], [0, 0], per_class=0), "per_class must be"),
        (lambda: query_draw_interval([0.1, 0.2], [0, 0], n_draws=0), "n_draws must be"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
