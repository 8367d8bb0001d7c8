import io
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from retrieval_geometry.reporting.figures import (
    MOST_BANDS,
    metric_dots,
    precision_curves,
)
from retrieval_geometry.reporting.gallery import PAGE_WIDTH, Neighbour, gallery, neighbour_rows

from .conftest import make_result, method


class Toys:
    ids = ("a/1", "a/2", "b/1", "b/2")

    def load(self, index: int) -> np.ndarray:
        return np.full((3, 8, 8), 60 * index, dtype=np.uint8)


def draws(figure: Figure) -> bool:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue().startswith(b"\x89PNG")


def no_title(figure: Figure) -> bool:
    return not any(axes.get_title() for axes in figure.axes)


def test_precision_curves_start_at_the_table(result):
    figure = precision_curves(result)
    axes = figure.axes[0]
    line = axes.get_lines()[0]
    assert line.get_ydata()[0] == pytest.approx(result["good"].metrics["P@1"].value)
    assert line.get_ydata()[9] == pytest.approx(result["good"].metrics["P@10"].value)
    assert {text.get_text() for text in axes.texts} == {"Good", "Bad | worse"}
    assert no_title(figure)
    assert draws(figure)


def test_labels_of_equal_curves_do_not_overlap():
    hits = np.ones((20, 10), bool)
    same = make_result(methods=tuple(method(f"m{i}", f"M{i}", hits) for i in range(6)))
    axes = precision_curves(same).axes[0]
    heights = sorted(text.xyann[1] for text in axes.texts)
    low, high = axes.get_ylim()
    assert min(np.diff(heights)) > 0
    assert low < heights[0]
    assert heights[-1] < high


def test_of_many_curves_no_bands_are_drawn():
    hits = np.random.default_rng(0).random((20, 10)) < 0.5
    few, many = (
        make_result(methods=tuple(method(f"m{i}", f"M{i}", hits) for i in range(n)))
        for n in (MOST_BANDS, MOST_BANDS + 1)
    )
    assert len(precision_curves(few).axes[0].collections) == MOST_BANDS
    assert not precision_curves(many).axes[0].collections


def test_a_curve_needs_neighbours(result):
    bare = make_result(methods=(result["good"].__class__("x", "X", result["good"].metrics),))
    with pytest.raises(ValueError, match="'x' has no recorded neighbours"):
        precision_curves(bare)


def test_dots_show_paper_and_ours(result):
    figure = metric_dots([result, make_result("real")], "P@1", paper={"good": {"P@1": 0.62}})
    axes = figure.axes[0]
    printed = axes.get_lines()[0].get_xdata()
    assert printed[0] == 0.62
    assert np.isnan(printed[1])
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["paper", "ours, quick", "ours, real"]
    assert no_title(figure)
    assert draws(figure)


def test_the_gallery_marks_right_and_wrong(result):
    figure = gallery(result, Toys())
    right = figure.axes[1].spines["left"].get_linestyle()
    wrong = figure.axes[2].spines["left"].get_linestyle()
    assert (right, wrong) == ("-", "--")
    framed = [spine for axes in figure.axes[1:3] for spine in axes.spines.values()]
    assert all(spine.get_visible() for spine in framed)
    assert [text.get_text() for text in figure.axes[2].texts] == ["×"]
    assert draws(figure)


def test_labels_of_a_wide_gallery_can_be_read_on_the_page(result):
    """The page shrinks a wide figure: what matters is the size of its text beside the width."""
    item = Neighbour(np.zeros((4, 4, 3), np.uint8))
    figure = neighbour_rows(item, {"SIFT-BoW-Euclidean": [item] * 10})
    label = figure.axes[0].yaxis.label
    for text in (label, figure.axes[0].texts[0]):
        assert text.get_fontsize() * PAGE_WIDTH / figure.get_figwidth() >= 9
    figure.draw_without_rendering()
    assert label.get_text() == "SIFT-BoW-\nEuclidean"
    assert label.get_window_extent().x0 >= 0  # nothing of it is cut off
    assert draws(figure)


def test_the_gallery_needs_recorded_neighbours(result):
    with pytest.raises(ValueError, match="no neighbours for a gallery"):
        gallery(make_result(details=None), Toys())
    with pytest.raises(ValueError, match="query must be between 0 and 0, got 3"):
        gallery(result, Toys(), query=3)


def test_neighbours_without_a_verdict_have_no_frame():
    item = Neighbour(np.zeros((4, 4, 3), np.uint8), "one.jpg\n0.12")
    figure = neighbour_rows(item, {"nearest": [item, item]})
    assert not figure.axes[1].get_frame_on()
    assert figure.axes[1].get_xlabel() == "one.jpg\n0.12"
    assert draws(figure)


def test_labels_are_drawn_as_they_stand(result):
    name = "$\\frac{a$ \x1b[31m"
    named = replace(result, methods=tuple(replace(entry, label=name) for entry in result.methods))
    curves, dots = precision_curves(named), metric_dots([named], "P@1")
    assert [text.get_text() for text in curves.axes[0].texts] == [r"$\frac{a$ \x1b[31m"] * 2
    assert [tick.get_text() for tick in dots.axes[0].get_yticklabels()] == [r"$\frac{a$ \x1b[31m"] * 2
    assert all(draws(figure) for figure in (curves, dots))
