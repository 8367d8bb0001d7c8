"""Rows of the tables that compare ways to learn a metric."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrieval_geometry.reporting import Claim, ClaimRow, Comparison, Finding, Models, Result, Verdict
from retrieval_geometry.reporting.learning_tables import (
    by_method,
    claims_by_run,
    format_lead,
    seed_ranges,
    settings_table,
    trained,
)
from retrieval_geometry.reporting.typeset import MINUS, NO_BREAK

from .conftest import make_result


def of_models(*values: float, trained: bool = True) -> Models:
    return Models({"R@1": values}, {}, trained=trained)


@pytest.fixture
def result() -> Result:
    """One method of three models, one network as it is, one that says nothing of models."""
    made = make_result()
    good, bad = made.methods
    learnt = replace(good, method="learnt", models=of_models(0.5, 0.8, 0.6))
    trunk = replace(bad, method="trunk", models=of_models(0.4, trained=False))
    return replace(made, methods=(learnt, trunk, good))


def test_a_method_that_a_column_lacks_gets_a_dash() -> None:
    rows = by_method({"a": "A", "b": "B"}, {"b": "1", "a": "2"}, {"b": "3", "c": "4"})
    assert rows == [["A", "2", "–"], ["B", "1", "3"]]


def test_settings_stand_beside_each_other() -> None:
    runs = {name: make_result(settings={"steps": steps}) for name, steps in (("here", 10), ("real", 20))}
    assert settings_table(runs, ["steps"]).splitlines() == [
        "|  | here | real |",
        "| :--- | :--- | :--- |",
        "| steps | 10 | 20 |",
    ]
    with pytest.raises(KeyError, match="batch"):
        settings_table(runs, ["batch"])


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(-0.2, 0.1, "-0.06 [-0.20, +0.10]"), (-0.2, -0.01, "**-0.06** [-0.20, -0.01]")],
)
def test_a_lead_is_bold_if_zero_lies_outside(low: float, high: float, shown: str) -> None:
    lead = Comparison("a", "b", "R@1", -0.06, low, high, queries=9, groups=3)
    assert format_lead(lead, digits=2).replace(MINUS, "-").replace(NO_BREAK, " ") == shown


def test_a_network_as_it_is_has_no_seeds(result: Result) -> None:
    assert [entry.method for entry in trained(result)] == ["learnt"]
    assert seed_ranges(result, "R@1") == {"learnt": pytest.approx(0.3)}


def test_a_claim_is_said_once_and_judged_by_each_run() -> None:
    claim = Claim(
        "toy-best", "toy", "Table 1", "A beats B.", "All.", lambda _: Finding(Verdict.REPRODUCED), (), {}
    )
    rows = [
        ClaimRow(claim, "quick", Finding(verdict, remark="why"), None)
        for verdict in (Verdict.REPRODUCED, Verdict.INCONCLUSIVE)
    ]
    lines = claims_by_run({"here": rows[:1], "real": rows[1:]}).splitlines()
    assert lines[2:] == [
        "| A beats B. (`toy`, Table 1) *All.* | here | **reproduced** | why |",
        "|  | real | **inconclusive** | why |",
    ]
