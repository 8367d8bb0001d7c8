"""The recorded runs, judged as the scorecard does."""

from collections import Counter
from contextlib import suppress

import pytest

from retrieval_geometry.experiments import claims
from retrieval_geometry.experiments.comparisons import compare, side
from retrieval_geometry.reporting import Comparison, Verdict, check_all, load_recorded, require_expected
from retrieval_geometry.reporting.claims import needed
from retrieval_geometry.reporting.results import NoResultError


@pytest.fixture(scope="module")
def rows():
    recorded = {name: load_recorded(name, "real") for name in needed(claims())}
    for name in set(needed(claims(), replicas=True)) - set(recorded):
        with suppress(NoResultError):  # a network that nobody has run yet
            recorded[name] = load_recorded(name, "real")
    return {row.claim.id: row for row in check_all(claims(), recorded, "real")}


def test_recorded_runs_give_the_registered_verdicts(rows):
    require_expected(list(rows.values()))
    assert Verdict.NOT_TESTED not in Counter(row.verdict for row in rows.values())


STILL_RISING = "wasserstein-dml"
"""Of the models on Omniglot one of W-triplet still gained at the end: what rests on it is marked."""


def test_verdicts_of_short_trainings_are_marked(rows):
    for row in rows.values():
        if row.reach is None:
            assert not row.claim.needs
        elif row.claim.paper == "geometric":
            assert row.reach.mark == "\\*"  # 100 of 1,200 queries, 30 of 1,200 images
        else:
            assert row.reach.steps == 1_400
            if row.claim.needs == ("learning-bench",):
                assert row.reach.small == (row.claim.paper == STILL_RISING)


def test_what_rests_on_one_model_is_open_and_says_so(rows):
    row = rows["rankmi-separation"]
    assert row.verdict is Verdict.INCONCLUSIVE
    assert row.reach.models == 1
    assert "one trained model" in row.evidence


def test_transport_was_asked_about_every_query_and_by_all_models(rows):
    reach = rows["wasserstein-dml-w-triplet-transport"].reach
    assert (reach.models, reach.queries, reach.possible) == (3, 4_840, 4_840)


def test_every_rival_and_metric_of_a_claim_is_looked_at_once(rows):
    looked_at = {
        "wasserstein-dml-w-triplet-best": 27,
        "wasserstein-dml-w-triplet-transport": 18,
        "geometric-gmm-wasserstein-best": 12,
        "rankmi-best": 7,
        "wasserstein-dml-coresets-controls": 4,
    }
    for name, number in looked_at.items():
        parts = rows[name].finding.parts
        assert len({(part.first, part.second, part.metric) for part in parts}) == number
        assert {part.at_once for part in parts if isinstance(part, Comparison)} == {number}


def test_a_difference_reads_the_same_from_both_ends():
    bench = load_recorded("learning-bench", "real")
    (one,), (other,) = (
        compare(bench, [(*pair, "AP@R")]) for pair in (("rankmi", "margin"), ("margin", "rankmi"))
    )
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert side(bench, "rankmi", "AP@R").models == 3
