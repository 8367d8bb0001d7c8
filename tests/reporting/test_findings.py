"""The rules that make verdicts, each on findings made up for it."""

from dataclasses import replace

import pytest

from retrieval_geometry.reporting.findings import (
    RULES,
    TIMING_NOISE,
    Comparison,
    Computed,
    Finding,
    Ratio,
    Verdict,
    every,
    most,
    not_tested,
)

YES, OPEN, NO = Verdict.REPRODUCED, Verdict.INCONCLUSIVE, Verdict.CONTRADICTED


def comparison(low: float, high: float, second: str = "B", **more) -> Comparison:
    return Comparison("A", second, "R@1", (low + high) / 2, low, high, queries=100, groups=10, **more)


ABOVE, ACROSS, BELOW = comparison(0.1, 0.3), comparison(-0.1, 0.2), comparison(-0.4, -0.2)
BY_VERDICT = {YES: ABOVE, OPEN: ACROSS, NO: BELOW}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.2, YES), (-0.1, 0.2, OPEN), (0.0, 0.2, OPEN), (-0.2, 0.0, OPEN), (-0.2, -0.1, NO)],
)
def test_an_interval_decides(low, high, verdict):
    assert comparison(low, high).verdict is verdict


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1)])
def test_of_one_trained_model_nothing_follows(low, high):
    assert comparison(low, high, models=1).verdict is OPEN
    assert comparison(low, high, models=2).verdict is comparison(low, high).verdict
    finding = every([comparison(low, high, models=1), ABOVE])
    assert finding.verdict is OPEN
    assert "one trained model" in finding.evidence
    assert Computed(True, "separated", models=1).verdict is OPEN


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.005, 0.1, YES), (-0.02, 0.1, OPEN), (-0.05, -0.02, NO), (-0.02, -0.005, OPEN)],
)
def test_as_good_as_allows_a_margin_either_way(low, high, verdict):
    assert comparison(low, high, bound=-0.01).verdict is verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(1.6, YES), (1.5, OPEN), (1.0, OPEN), (0.7, OPEN), (0.6, NO), (float("nan"), OPEN)],
)
def test_times_must_differ_by_more_than_noise(ratio, verdict):
    assert TIMING_NOISE == 1.5
    assert Ratio("A", "B", ratio).verdict is verdict


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ([YES, YES, YES], YES),
        ([YES, OPEN, YES], OPEN),
        ([YES, YES, NO], NO),
        ([OPEN, NO, YES], NO),
        ([OPEN, OPEN, OPEN], OPEN),
    ],
)
def test_every_needs_all_and_one_contradicts(parts, verdict):
    finding = every([BY_VERDICT[part] for part in parts])
    assert finding.verdict is verdict
    assert finding.decided_by == (BY_VERDICT[verdict],)


@pytest.mark.parametrize(
    ("metrics", "verdict"),
    [
        ([YES, YES, YES], YES),
        ([YES, YES, NO], YES),  # most means most: one failing metric does not contradict
        ([YES, OPEN, NO], OPEN),
        ([YES, NO, NO], NO),
        ([OPEN, NO, NO], NO),
        ([YES, OPEN, OPEN], OPEN),
        ([OPEN, OPEN, NO], OPEN),
        ([YES, YES], YES),
        ([YES, NO], NO),  # half is not most
        ([YES, OPEN], OPEN),
        ([YES, YES, NO, NO], NO),
        ([YES, YES, YES, NO], YES),
        ([NO, OPEN, OPEN, OPEN], OPEN),
    ],
)
def test_most_counts_metrics(metrics, verdict):
    finding = most({f"m{i}": every([BY_VERDICT[found]]) for i, found in enumerate(metrics)})
    assert finding.verdict is verdict
    counted = f"{metrics.count(YES)} of {len(metrics)} metrics reproduced, {metrics.count(NO)} contradicted"
    assert counted in finding.evidence
    assert len(finding.parts) == len(metrics)


def test_the_least_favourable_comparison_decides_and_is_shown():
    near, far = comparison(0.02, 0.1, "near"), comparison(0.3, 0.5, "far")
    assert every([far, near]).decided_by == (near,)
    bad, worse = comparison(-0.2, -0.1, "bad"), comparison(-0.5, -0.4, "worse")
    assert every([bad, worse, near]).decided_by == (worse,)
    finding = every([bad, worse, near, ACROSS])
    assert finding.evidence == (
        "A minus worse: R@1 -0.450 [-0.500, -0.400] (4 intervals at once: 1 for, 1 open, 2 against)"
    )


def test_times_and_computations_decide_with_comparisons():
    faster, fastest = Ratio("A", "B", 1.6), Ratio("A", "C", 3.0)
    assert every([fastest, faster]).decided_by == (faster,)
    assert every([fastest, faster]).evidence.startswith("A takes 1.60 times as long as B")
    finding = every([faster, Computed(False, "both are the same")])
    assert finding.verdict is NO
    assert finding.evidence.startswith("both are the same")


def test_one_comparison_is_not_counted():
    assert every([ABOVE]).evidence == "A minus B: R@1 +0.200 [+0.100, +0.300]"


def test_what_was_not_tested_says_why():
    finding = not_tested("no run of B")
    assert finding == Finding(Verdict.NOT_TESTED, remark="no run of B")
    assert finding.evidence == "no run of B"


def test_a_label_may_hold_colons():
    """Evidence is made from the comparisons; once it was taken apart at the last colon."""
    odd = replace(ABOVE, first="Sinkhorn: p = 1", second="W2: exact")
    assert every([odd]).evidence.startswith("Sinkhorn: p = 1 minus W2: exact: R@1 +0.200")


def test_rules_are_sentences():
    assert all(rule.endswith(".") for rule in RULES.values())
    assert "1.5" in RULES["time"]
