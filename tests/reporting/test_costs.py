"""Tables of the benchmarks from a few made-up rows."""

from dataclasses import replace

import pytest

from retrieval_geometry.reporting.costs import (
    best_peer,
    commits_table,
    cost_table,
    draw_growth,
    growth_table,
    missed_marks,
    search_table,
    seconds_with_preparation,
    work_name,
)
from retrieval_geometry.reporting.details import Clocked, CostCurve, CostRow, CostSide
from retrieval_geometry.reporting.figures import new_figure

from .test_tables import cells


def clocked(seconds: float) -> Clocked:
    return Clocked(seconds, seconds, seconds, 3)


OURS = CostSide("ours", clocked(2e-3), 3e-8, clocked(0.1))
SLOW, QUICK = CostSide("Slow", clocked(0.5), 1e-3), CostSide("Quick", clocked(4e-2), 0.0)
ROW = CostRow(
    "w2", "2-Wasserstein", "pair", "D = 512", OURS, (SLOW, QUICK), 28.0, None, None, None, 0.15, "", 20.0,
    "Quick", "a" * 40,
)  # fmt: skip
ALONE = replace(ROW, work="words", peers=(), best=None, ratio=None, mark=None, gemm_share=None)
SEARCH = replace(ROW, work="top-10", evaluated=0.022, identical=True, memory_mb=1440.0, ratio=5.5, mark=5.0)
CURVE = CostCurve(
    "kl-dimensions", "KL", "dimensions", (32, 64, 512), {"ours": (1e-3, 2e-3, 4e-3)}, {"ours": 1.96}, "pair",
    None, "b" * 40,
)  # fmt: skip


def test_the_best_peer_is_the_named_one():
    assert best_peer(ROW) is QUICK
    assert best_peer(ALONE) is None


def test_point_sets_of_different_sizes_are_told_apart():
    assert work_name(ROW) == "2-Wasserstein"
    assert work_name(replace(ROW, conditions="n = 16, d = 32, p = 1")) == "2-Wasserstein, 16 points an image"


def test_preparation_is_shared_among_the_pairs():
    assert seconds_with_preparation(OURS, 4, 5) == pytest.approx(2e-3 + 0.1 * 9 / 20)
    assert seconds_with_preparation(QUICK, 4, 5) == 4e-2


def test_costs_stand_beside_the_best_peer():
    _, _, beside, alone = cells(cost_table([ROW, ALONE]))
    assert beside == [
        "2-Wasserstein (pair)", "2.0 ms", "Quick", "40 ms", "20×", "28×", "3e-08", "0", "15%"
    ]  # fmt: skip
    assert alone == ["words (pair)", "2.0 ms", "–", "–", "–", "–", "3e-08", "–", "–"]


@pytest.mark.parametrize(("identical", "said"), [(True, "yes"), (False, "NO")])
def test_a_search_says_whether_its_answer_is_exact(identical, said):
    *_, row = cells(search_table([replace(SEARCH, identical=identical)]))
    assert row == ["top-10", "2.0 ms", "2.2%", said, "Quick", "5.5×", "5.0×", "1.4 GB"]


def test_powers_stand_beside_what_counting_predicts():
    *_, row = cells(growth_table({"kl": CURVE}, {"kl": "2"}))
    assert row == ["KL", "dimensions", "32 to 512", "2", "2.0", "–"]


def test_rows_and_curves_are_listed_by_commit_and_name():
    *_, first, second = cells(commits_table([ROW, ALONE], [CURVE]))
    assert first == ["a" * 12, "2-Wasserstein; words"]
    assert second == ["b" * 12, "KL over dimensions"]


def test_missed_marks_are_named():
    assert missed_marks([ROW, ALONE, SEARCH]) == "2-Wasserstein (20× of 28×)"
    assert missed_marks([SEARCH]) == "none"


def test_growth_is_drawn_in_milliseconds_on_logarithmic_axes():
    axes = new_figure(3, 3).subplots()
    curve = replace(CURVE, seconds={**CURVE.seconds, "peer": (1.0, 2.0, 3.0)})
    draw_growth(axes, curve, "KL", "#0072B2")
    ours, peer = axes.get_lines()
    assert list(ours.get_ydata()) == pytest.approx([1.0, 2.0, 4.0])
    assert (ours.get_linestyle(), peer.get_linestyle(), axes.get_xscale()) == ("-", "--", "log")
    assert axes.get_legend_handles_labels()[1] == ["KL"]
