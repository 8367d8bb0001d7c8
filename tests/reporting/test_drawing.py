"""Parts of figures: what is drawn where, and that no two curves look alike."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from retrieval_geometry.reporting.drawing import (
    draw_heat,
    draw_histograms,
    draw_intervals,
    draw_lines,
    draw_pairs,
    draw_pictures,
    shared_legend,
)
from retrieval_geometry.reporting.figures import RIGHT, WRONG, new_figure
from retrieval_geometry.reporting.measured import Metric


@pytest.fixture
def axes():
    return new_figure(3, 3).subplots()


def test_lines_differ_in_colour_style_and_marker(axes):
    curves = {"one": [1, 2], "two": [3, 4], "three": [5, 6]}
    draw_lines(axes, [10, 20], curves, marked=True)
    lines = axes.get_lines()
    looks = zip(*((line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines), strict=True)
    assert all(len(set(look)) == 3 for look in looks)
    assert [line.get_label() for line in lines] == ["one", "two", "three"]
    assert [list(line.get_ydata()) for line in lines] == list(curves.values())
    assert {tuple(line.get_xdata()) for line in lines} == {(10, 20)}


def test_lines_without_places_count_from_zero(axes):
    draw_lines(axes, None, {"long": [5, 6, 7], "short": [8]}, lw=3)
    long, short = axes.get_lines()
    assert (list(long.get_xdata()), list(short.get_xdata())) == ([0, 1, 2], [0])
    assert long.get_linewidth() == 3


def test_histograms_are_densities_of_all_numbers_of_a_sample(axes):
    draw_histograms(axes, {"square": np.full((2, 2), 0.25), "row": np.array([0.75])}, np.array([0, 0.5, 1.0]))
    heights = [patch.get_xy()[:, 1].max() for patch in axes.patches]
    assert heights == pytest.approx([2.0, 2.0])
    assert [patch.get_label() for patch in axes.patches] == ["square", "row"]
    assert len({patch.get_linestyle() for patch in axes.patches}) == 2


def test_matching_pairs_are_blue_circles_above_the_others(axes):
    draw_pairs(axes, [1, 2, 3], [4, 5, 6], [True, False, True], ("same", "different"))
    others, matching = axes.collections
    assert (others.get_label(), matching.get_label()) == ("different", "same")
    assert matching.get_offsets().tolist() == [[1, 4], [3, 6]]
    assert others.get_offsets().tolist() == [[2, 5]]
    assert [to_hex(part.get_facecolor()[0]).upper() for part in (matching, others)] == [RIGHT, WRONG]


def test_of_many_pairs_some_are_drawn(axes):
    draw_pairs(axes, np.arange(100), np.arange(100), np.arange(100) < 90, most=9)
    assert [len(part.get_offsets()) for part in axes.collections] == [10, 9]


def test_intervals_have_their_ends_and_names_from_the_top(axes):
    draw_intervals(axes, [Metric(0.5, 0.25, 1.0, 9), Metric(0.2, 0.1, 0.3, 9)], names=["first", "second"])
    (bars,) = axes.collections
    assert [segment[:, 0].tolist() for segment in bars.get_segments()] == [[0.25, 1.0], [0.1, 0.3]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert axes.get_ylim() == (1.5, -0.5)


def test_a_heat_map_has_cuts_and_no_ticks(axes):
    draw_heat(axes, np.eye(4), cuts=[2], cmap="RdBu")
    assert axes.get_images()[0].get_array().shape == (4, 4)
    assert axes.get_lines()[0].get_ydata() == [1.5, 1.5]
    assert axes.get_lines()[1].get_xdata() == [1.5, 1.5]
    assert not len(axes.get_xticks()) + len(axes.get_yticks())


def test_pictures_stand_in_their_rows():
    figure = new_figure(3, 2)
    picture = np.zeros((3, 5, 7), dtype=np.uint8)
    draw_pictures(figure, [[picture, picture], [picture]])
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places] == [(0, 0), (0, 1), (1, 0)]
    assert figure.axes[0].get_images()[0].get_array().shape == (5, 7, 3)


def test_a_shared_legend_names_each_curve_once():
    figure = new_figure(3, 2)
    for axes in figure.subplots(1, 2):
        draw_lines(axes, None, {"same": [1, 2]})
    axes.plot([1], label="other")
    shared_legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["same", "other"]
