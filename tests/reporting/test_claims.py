import math
from dataclasses import replace

import pytest

from retrieval_geometry.reporting import (
    Claim,
    ClaimError,
    Finding,
    Scope,
    Verdict,
    check_all,
    require_expected,
)
from retrieval_geometry.reporting.claims import (
    SMALL_STEPS,
    check,
    ended_flat,
    late_gain,
    needed,
    reach_of,
)
from retrieval_geometry.reporting.findings import Comparison, Computed, every
from retrieval_geometry.reporting.results import Models

from .conftest import make_result

RULE = "Good must be good."


def claim(
    verdict: Verdict, expected: dict[str, Verdict] | None = None, name: str = "c", needs=("toy-table",)
) -> Claim:
    finding = Finding(verdict, remark="0.8")
    return Claim(name, "toy", "Table 1", "Good is good.", RULE, lambda _: finding, needs, expected or {})


def test_a_claim_without_its_result_is_not_tested():
    (row,) = check_all([claim(Verdict.REPRODUCED)], {}, "quick")
    assert row.verdict is Verdict.NOT_TESTED
    assert not row.changed
    assert "toy-table" in row.evidence
    require_expected([row])


def test_a_registered_claim_that_was_not_tested_is_an_error():
    (row,) = check_all([claim(Verdict.REPRODUCED, {"quick": Verdict.REPRODUCED})], {}, "quick")
    assert row.verdict is Verdict.NOT_TESTED
    assert row.changed
    with pytest.raises(ClaimError, match=r"c \(quick\): now not tested here, registered reproduced"):
        require_expected([row])


def test_a_predicate_that_finds_no_numbers_is_an_error_as_well(result):
    (row,) = check_all(
        [claim(Verdict.NOT_TESTED, {"quick": Verdict.REPRODUCED})], {"toy-table": result}, "quick"
    )
    with pytest.raises(ClaimError, match="or run what was not tested"):
        require_expected([row])


def test_what_claims_need_is_listed_once():
    claims = [claim(Verdict.REPRODUCED, name=name, needs=needs) for name, needs in
              (("a", ("x", "y")), ("b", ()), ("c", ("y", "z")))]  # fmt: skip
    assert needed(claims) == ["x", "y", "z"]
    more = [replace(entry, replicas=("z", "w")) for entry in claims]
    assert needed(more) == ["x", "y", "z"]
    assert needed(more, replicas=True) == ["x", "y", "z", "w"]


def test_a_verdict_is_expected_only_of_the_images_it_was_found_on(result):
    entry = replace(claim(Verdict.CONTRADICTED, {"quick": Verdict.REPRODUCED}), images={"quick": "other"})
    (row,) = check_all([entry], {"toy-table": result}, "quick")
    assert not row.changed
    entry = replace(entry, images={"quick": result.dataset.sha256})
    (row,) = check_all([entry], {"toy-table": result}, "quick")
    assert row.changed


def test_mathematics_needs_no_result():
    (row,) = check_all([claim(Verdict.CONTRADICTED, needs=())], {}, "quick")
    assert row.verdict is Verdict.CONTRADICTED
    assert row.reach is None


def test_a_changed_verdict_fails_with_the_remedy(result):
    rows = check_all(
        [
            claim(Verdict.REPRODUCED, {"quick": Verdict.REPRODUCED}, "same"),
            claim(Verdict.CONTRADICTED, {"quick": Verdict.REPRODUCED}, "turned"),
            claim(Verdict.CONTRADICTED, {"real": Verdict.REPRODUCED}, "unregistered"),
        ],
        {"toy-table": result},
        "quick",
    )
    assert [row.changed for row in rows] == [False, True, False]
    with pytest.raises(
        ClaimError, match=r"turned \(quick\): now contradicted, registered reproduced"
    ) as caught:
        require_expected(rows)
    assert "update `expected`" in str(caught.value)
    require_expected(rows[:1])


def test_a_run_with_another_seed_is_not_held_to_the_entry():
    changed = claim(Verdict.CONTRADICTED, {"quick": Verdict.REPRODUCED})
    (row,) = check_all([changed], {"toy-table": make_result(seed=1)}, "quick")
    assert row.expected is None
    require_expected([row])


def test_results_of_another_profile_are_refused():
    with pytest.raises(ValueError, match="profile 'real', expected 'quick'"):
        check_all([], {"toy-table": make_result("real")}, "quick")


def test_ids_are_unique(result):
    with pytest.raises(ValueError, match="repeated: c"):
        check_all([claim(Verdict.REPRODUCED)] * 2, {}, "quick")


def judged(profile: str, scope: Scope, **more):
    """A claim that rests on one comparison, under a result of that scope."""
    found = Comparison("A", "B", "R@1", 0.2, 0.1, 0.3, **{"queries": 90, "groups": 9, **more})
    entry = replace(claim(Verdict.REPRODUCED), predicate=lambda _: every([found]))
    return check(entry, {"toy-table": make_result(profile, scope=scope)}, profile)


def test_a_verdict_says_how_far_it_reaches():
    row = judged("real", Scope("net", 90, 90, steps=SMALL_STEPS, models=3), group_name="alphabets", models=3)
    assert str(row.reach) == "toys; net; 3,750 steps, 3 models of each; 90 queries in 9 alphabets"
    assert row.marked == "**reproduced**"


def test_a_small_budget_is_marked():
    row = judged("real", Scope("net", 90, 90, steps=SMALL_STEPS - 1, models=3), models=3)
    assert row.reach.small
    assert str(row.reach).endswith("; a small budget")
    assert row.marked == "**reproduced**†"
    assert judged("quick", Scope("net", 90, 90)).marked == "**reproduced**†"  # stand-ins for images
    assert not judged("paper", Scope("net", 90, 90)).reach.small


def trained_result(profile: str, **curves):
    """A result of trained methods, each with a model for each of its curves."""
    entry = make_result(profile).methods[0]
    methods = [
        replace(entry, method=name, label=name, models=Models({"R@1": (0.5,)}, {}, curves=of_method))
        for name, of_method in curves.items()
    ]
    scope = Scope("net", 90, 90, steps=600, models=3)
    return replace(make_result(profile, scope=scope), methods=tuple(methods))


RISING = ((200.0, 0.5), (300.0, 0.6), (400.0, 0.7), (500.0, 0.75), (600.0, 0.75))
ENDED = ((200.0, 0.5), (300.0, 0.7), (400.0, 0.75), (500.0, 0.752), (600.0, 0.755))


def worse(first: str, second: str, low: float = -0.3, high: float = -0.1):
    return Comparison(first, second, "R@1", (low + high) / 2, low, high, queries=90, groups=9, models=3)


def test_a_budget_is_not_small_where_the_curves_that_count_ended_flat():
    assert late_gain(RISING) == pytest.approx(0.05)
    assert late_gain(ENDED) == pytest.approx(0.005)
    assert late_gain(((100.0, 0.5), (400.0, 0.9), (500.0, 0.8), (600.0, 0.85))) == 0  # the best is kept
    assert late_gain(((600.0, 0.9),)) == math.inf
    result = trained_result("real", A=(ENDED, ENDED), B=(ENDED,), B2=(RISING,), C=())
    contradicted = every([worse("A by transport", "B"), worse("A", "B2", -0.4, -0.2)])
    assert contradicted.decided_by[0].second == "B2"
    assert not ended_flat(contradicted, result)  # what decides is still learning
    assert ended_flat(every([worse("A by transport", "B"), worse("A", "B2", high=0.1)]), result)
    assert not ended_flat(every([worse("A", "B", 0.1, 0.2), worse("A", "B2", 0.1, 0.2)]), result)
    assert ended_flat(every([worse("A", "B", 0.1, 0.2)]), result)
    assert not ended_flat(every([worse("A", "C")]), result)  # nobody looked
    assert not ended_flat(every([Computed(True, "a time")]), result)
    assert not reach_of(every([worse("A", "B")]), [result]).small
    assert reach_of(every([worse("A", "B2")]), [result]).small
    assert reach_of(every([worse("A", "B")]), [trained_result("quick", A=(ENDED,), B=(ENDED,))]).small


@pytest.mark.parametrize("profile", ["quick", "real"])
def test_a_small_budget_of_training_contradicts_nothing(profile):
    entry = replace(claim(Verdict.CONTRADICTED), predicate=lambda _: every([worse("A", "B")]))

    def verdict_of(result):
        return check(entry, {"toy-table": result}, profile)

    short = verdict_of(trained_result(profile, A=(ENDED,), B=(RISING,)))
    assert short.verdict is Verdict.INCONCLUSIVE
    assert short.marked == "**inconclusive**†"
    assert "-0.200 [-0.300, -0.100]; against it, but a small budget contradicts nothing" in short.evidence
    assert str(short.reach).endswith("a small budget")
    ended = verdict_of(trained_result(profile, A=(ENDED,), B=(ENDED,)))
    assert ended.verdict is (Verdict.CONTRADICTED if profile == "real" else Verdict.INCONCLUSIVE)
    untrained = make_result(profile, scope=Scope("net", 90, 90))
    assert verdict_of(untrained).verdict is Verdict.CONTRADICTED


def test_a_part_of_the_queries_and_a_single_model_are_marked():
    row = judged("real", Scope("net", 90, 1200))
    assert "90 of 1,200 queries in 9 classes" in str(row.reach)
    assert row.marked == "**reproduced**\\*"
    row = judged("real", Scope("net", 6590, 6590, steps=9_000, models=3), models=1)  # 90 of them, one model
    assert "1 model of each; 90 of 6,590 queries" in str(row.reach)
    assert row.marked == "**inconclusive**\\*"


def test_without_comparisons_the_result_says_how_far():
    result = make_result("real", scope=Scope("net", 100, 1200))
    (row,) = check_all([claim(Verdict.REPRODUCED)], {"toy-table": result}, "real")
    assert str(row.reach) == "toys; net; 100 of 1,200 queries"
    untested = claim(Verdict.NOT_TESTED)
    assert check(untested, {"toy-table": result}, "real").reach is None
