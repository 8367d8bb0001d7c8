from dataclasses import replace

import pytest

from retrieval_geometry.reporting import Claim, ClaimError, Finding, Verdict, check_all, require_expected
from retrieval_geometry.reporting.claims import all_of, from_interval

from .conftest import make_result


def claim(
    verdict: Verdict, expected: dict[str, Verdict] | None = None, name: str = "c", needs=("toy-table",)
):
    return Claim(
        name, "toy", "Table 1", "Good is good.", lambda _: Finding(verdict, "0.8"), needs, expected or {}
    )


def test_a_claim_without_its_result_is_not_tested():
    (row,) = check_all([claim(Verdict.REPRODUCED, {"quick": Verdict.REPRODUCED})], {}, "quick")
    assert row.verdict is Verdict.NOT_TESTED
    assert not row.changed
    assert "toy-table" in row.evidence


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


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, Verdict.REPRODUCED),
        (-0.1, 0.2, Verdict.INCONCLUSIVE),
        (0.0, 0.2, Verdict.INCONCLUSIVE),
        (-0.2, -0.1, Verdict.CONTRADICTED),
    ],
)
def test_an_interval_decides(low, high, verdict):
    assert from_interval(low, high, "").verdict is verdict


def test_a_claim_of_parts_is_as_good_as_its_worst():
    wanted = (Verdict.REPRODUCED, Verdict.INCONCLUSIVE, Verdict.CONTRADICTED)
    yes, open_, no = (Finding(verdict, str(verdict)) for verdict in wanted)
    assert all_of([yes, yes]).verdict is Verdict.REPRODUCED
    assert all_of([yes, open_]).verdict is Verdict.INCONCLUSIVE
    assert all_of([open_, no, yes]).verdict is Verdict.CONTRADICTED
    assert all_of([yes, no]).evidence == "reproduced; contradicted"
