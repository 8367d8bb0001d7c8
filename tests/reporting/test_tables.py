from dataclasses import replace

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

from retrieval_geometry.reporting import Claim, ClaimRow, Finding, MethodResult, Metric, Verdict, WeightsInfo
from retrieval_geometry.reporting.claims import Reach
from retrieval_geometry.reporting.tables import (
    claims_table,
    evidence_list,
    format_failures,
    format_metric,
    format_power,
    format_seconds,
    markdown_table,
    provenance_table,
    retrieval_table,
    search_note,
    time_table,
    verdicts_table,
)
from retrieval_geometry.reporting.typeset import MINUS, NO_BREAK

from .conftest import make_result

PAPER = {"good": {"P@1": 0.62, "seconds": 5.147}, "bad": {"P@1": 0.45}}


def cells(table: str) -> list[list[str]]:
    table = table.replace(NO_BREAK, " ").replace(MINUS, "-")
    return [
        [c.strip() for c in line.strip("|").replace("\\|", "¦").split("|")] for line in table.splitlines()
    ]


@pytest.mark.parametrize(("value", "text"), [(6e-8, "6e-8"), (1.0, "1e0"), (1.2e10, "1e10"), (0, "0e0")])
def test_powers_have_one_digit(value, text):
    assert format_power(value) == text


def test_failures_have_the_interval_of_wilson():
    fails = np.zeros((20, 5), dtype=bool)
    fails[0] = True
    assert [text.replace(NO_BREAK, " ") for text in format_failures(fails)] == ["5 of 100", "2–11 %"]
    assert format_failures(torch.tensor([True]))[0] == f"1{NO_BREAK}of{NO_BREAK}1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5.147, "5.1 s"), (35.2, "35 s"), (0.375, "375 ms"), (0.0012, "1.2 ms"), (1.8e-5, "18 µs"),
     (3e-9, "3.0 ns"), (None, "–")],
)  # fmt: skip
def test_seconds_have_two_digits_and_a_unit(seconds, text):
    assert format_seconds(seconds) == text


def test_a_metric_shows_its_interval():
    assert format_metric(Metric(0.62, 0.55, 0.69, 94)) == "0.62 [0.55, 0.69]"
    assert format_metric(Metric(0.62, 0.55, 0.69, 94), bold=True) == "**0.62** [0.55, 0.69]"
    assert format_metric(Metric(0.37, 0.37, 0.37, 1)) == "0.37"  # one model
    assert format_metric(Metric(0.0412, 0.0398, 0.043, 94), digits=3) == "0.041 [0.040, 0.043]"
    assert format_metric(None) == "–"


def test_rows_must_fit_the_header():
    with pytest.raises(ValueError, match="every row needs 2 cells"):
        markdown_table(["a", "b"], [["1"]])


def test_the_papers_number_stands_beside_ours(result):
    table = cells(retrieval_table([result], PAPER, metrics=("P@1", "P@5")))
    assert table[0] == ["Method", "Top-1, paper", "Top-1, quick", "Top-5, paper", "Top-5, quick"]
    good, bad = table[2:]
    assert good[:2] == ["Good", "**0.62**"]
    assert good[2].startswith("**")
    assert good[3] == "–"
    assert bad[0] == "Bad ¦ worse"
    assert bad[1] == "0.45"
    assert "**" not in bad[2]


def test_two_results_share_a_table_even_if_one_lacks_a_method(result):
    other = make_result("real", methods=result.methods[:1])
    table = cells(retrieval_table([result, other], PAPER, metrics=("P@1",)))
    assert table[0][1:] == ["Top-1, paper", "Top-1, quick", "Top-1, real"]
    assert table[3][3] == "–"


def test_without_printed_numbers_there_is_no_column_for_them(result):
    assert cells(retrieval_table([result], metrics=("P@1",)))[0] == ["Method", "Top-1, quick"]
    assert cells(time_table([result]))[0] == ["Method", "comparison, quick", "model of an image, quick"]


def test_of_variation_the_least_is_the_best():
    entries = [MethodResult(n, n, {"variation": Metric(v, v, v, 9)}) for n, v in (("a", 0.2), ("b", 0.1))]
    table = cells(retrieval_table([make_result(methods=tuple(entries))], metrics=("variation",)))
    assert table[2][1] == "0.20 [0.20, 0.20]"
    assert table[3][1] == "**0.10** [0.10, 0.10]"


def test_times_have_units(result):
    good = cells(time_table([result], PAPER))[2]
    assert good == ["Good", "5.1 s", "1.0 ms", "20 ms"]


def test_provenance_says_what_ran(result):
    text = provenance_table(result)
    assert "toys: 40 images, 2 classes" in text
    assert "commit 000000000000" in text
    assert "with local changes" not in text


def row_of(verdict: Verdict, reach: Reach | None, remark: str = "0.8 > 0.3") -> ClaimRow:
    finding = Finding(verdict, remark=remark)
    claim = Claim("c", "toy", "Table 1", "Good is good.", "Rule.", lambda _: finding, (), {})
    return ClaimRow(claim, "quick", finding, None, reach)


HERE = Reach("toys", "net", None, None, 20, 40, " in 2 classes", small=True)


def test_claims_are_listed_with_rule_evidence_and_reach():
    table = cells(claims_table([row_of(Verdict.REPRODUCED, HERE)]))
    assert table[2] == [
        "Good is good. (Table 1)",
        "**reproduced**†\\*",
        "Rule. *Decided by*: 0.8 > 0.3. *Holds for*: toys; net; 20 of 40 queries in 2 classes; "
        "a small budget.",
    ]


def test_verdicts_of_several_runs_stand_side_by_side():
    runs = {"here": [row_of(Verdict.REPRODUCED, HERE)], "recorded": [row_of(Verdict.CONTRADICTED, None)]}
    assert cells(verdicts_table(runs))[0] == ["Claim", "here", "recorded"]
    assert cells(verdicts_table(runs))[2] == ["Good is good.", "**reproduced**†\\*", "**contradicted**"]
    lines = evidence_list(runs).splitlines()
    assert lines[:2] == ["Good is good. (Table 1)", ": *Rule.* Rule."]
    assert lines[2].startswith(": *here.* **reproduced**†\\*. *Decided by*: 0.8 > 0.3. *Holds for*: toys")
    assert lines[3] == ": *recorded.* **contradicted**. *Decided by*: 0.8 > 0.3."


def test_mathematics_is_said_once():
    runs = {name: [row_of(Verdict.REPRODUCED, None)] for name in ("here", "recorded")}
    assert evidence_list(runs).splitlines()[2:] == [": *Any run.* **reproduced**. *Decided by*: 0.8 > 0.3."]


def test_names_from_outside_are_text_in_a_table():
    """A data set, a machine and a weight file may be called anything; a page shows their names."""
    name = "a|b <script>x</script> $y$ *z* [u](v) \x1b[31m"
    result = make_result()
    dataset = replace(result.dataset, name=name)
    made = replace(result.provenance, cpu=name, weights=(WeightsInfo(name, "0" * 64),))
    table = provenance_table(replace(result, dataset=dataset, provenance=made))
    page = MarkdownIt("commonmark").enable("table").render(table)
    shown = BeautifulSoup(page, "html.parser")
    assert shown.get_text().count(r"a|b <script>x</script> $y$ *z* [u](v) \x1b[31m") == 3
    assert not shown.find_all(["script", "em", "a"])
    assert {len(row.find_all("td")) for row in shown.find_all("tr")[1:]} == {2}
    assert "$" not in table


def test_evidence_keeps_its_intervals_in_one_piece():
    row = row_of(Verdict.REPRODUCED, None, remark="-0.1 [-0.2, 0.0]")
    assert f"{MINUS}0.1 [{MINUS}0.2,{NO_BREAK}0.0]" in evidence_list({"here": [row]})


def test_the_note_of_an_exact_search_says_what_it_needed():
    result = make_result()
    noted = replace(result.methods[0], notes=("shrunk by 0.1", "exact search: 12 % of the pairs"))
    searched = replace(result, methods=(noted, *result.methods[1:]))
    assert search_note(searched, "good") == "12 % of the pairs"
    assert search_note(searched, "bad") is None
