"""Figures from results and image sets: one function each, returning a matplotlib Figure without a title.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; line styles, markers and direct
labels say the same again without colour. The background is solid white, legible on light and dark pages.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrieval_geometry._text import printable
from retrieval_geometry.reporting.results import Result
from retrieval_geometry.reporting.tables import METRIC_NAMES, PaperNumbers, method_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RIGHT, WRONG = "#0072B2", "#D55E00"
MOST_BANDS = 8
"""With more lines than this, bands would hide them."""

LINE_STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def new_figure(width: float, height: float) -> "Figure":
    """An empty white figure of the given inches that a notebook shows once, as the value of its cell.

    Its axes have the house style: no lines above and to the right, and the colours of :data:`OKABE_ITO`.
    """
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    # A class, not rcParams: a notebook of a reader keeps the style it has.
    class Quiet(Figure):
        def add_subplot(self, *arguments: Any, **options: Any) -> "Axes":
            axes = super().add_subplot(*arguments, **options)
            if axes.name == "rectilinear":
                axes.spines[["top", "right"]].set_visible(False)
                axes.set_prop_cycle(color=OKABE_ITO)
            return axes

    layout: dict[str, Any] = {"dpi": 120, "facecolor": "white", "layout": "constrained"}
    figure = plt.figure(figsize=(width, height), FigureClass=Quiet, **layout)
    plt.close(figure)  # taken out of pyplot's hands, which would show it a second time
    return figure


def precision_curves(
    result: Result, methods: Sequence[str] | None = None, confidence: float = 0.95
) -> "Figure":
    """Mean P@k against k, as Figure 1 of [geometric]; lines labelled at their ends, bands over classes."""
    from retrieval_geometry.evaluation import GroupMeans, mean_interval

    entries = [result[name] for name in methods] if methods else list(result.methods)
    figure = new_figure(7.5, max(4.6, 0.27 * len(entries)))
    axes = figure.subplots()
    ends = []
    for i, entry in enumerate(entries):
        if entry.relevance is None:
            raise ValueError(f"method {entry.method!r} has no recorded neighbours to draw a curve from")
        # Without groups each query counts for itself.
        classes = result.groups.of_query if result.groups else range(len(entry.relevance.unpack()))
        ks = np.arange(1, entry.relevance.k + 1)
        bands = [
            mean_interval(GroupMeans.of(entry.relevance.precision(k), classes), confidence)
            for k in ks.tolist()
        ]
        colour, style = OKABE_ITO[i % len(OKABE_ITO)], LINE_STYLES[i % len(LINE_STYLES)]
        values = [band.value for band in bands]
        if len(entries) <= MOST_BANDS:
            # Student's interval does not know that a share ends at 0 and at 1.
            low, high = (np.clip(side, 0, 1) for side in zip(*(band[1:] for band in bands), strict=True))
            axes.fill_between(ks, low, high, color=colour, alpha=0.1, lw=0)
        axes.plot(ks, values, color=colour, linestyle=style, marker=MARKERS[i % len(MARKERS)], ms=4, lw=1.6)
        ends.append((values[-1], entry.label, colour))
    axes.set_xlabel("k, nearest neighbours looked at")
    axes.set_ylabel("precision at k")
    axes.set_xticks(ks)
    _label_ends(axes, float(ks[-1]), ends)
    _quiet(axes)
    return figure


def metric_dots(
    results: Sequence[Result],
    metric: str = "P@1",
    paper: PaperNumbers | None = None,
    methods: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    xlabel: str | None = None,
) -> "Figure":
    """One row a method: the paper's number as an open diamond, ours as filled markers with intervals."""
    methods = methods or [entry.method for entry in results[0].methods]
    names = names or [f"ours, {result.profile}" for result in results]
    figure = new_figure(7.0, 0.8 + 0.34 * len(methods))
    axes = figure.subplots()
    rows = np.arange(len(methods))
    if paper:
        printed = [paper.get(name, {}).get(metric, np.nan) for name in methods]
        axes.plot(printed, rows, "D", mfc="white", mec="black", ms=6, label="paper")
    for i, (result, name) in enumerate(zip(results, names, strict=True)):
        # Results of one method side by side, below the paper's number.
        shift = 0.22 * (i - (len(results) - 1) / 2) + (0.12 if paper else 0.0)
        entries = [(row, result.get(method)) for row, method in enumerate(methods)]
        present = [(row, entry.metrics[metric]) for row, entry in entries if entry]
        values, low, high = np.array([(m.value, m.low, m.high) for _, m in present]).T
        y = np.array([row for row, _ in present]) + shift
        errors = np.clip([values - low, high - values], 0, None)
        style: dict[str, Any] = {"fmt": MARKERS[i], "color": OKABE_ITO[i], "ms": 5, "lw": 1.2, "capsize": 2}
        axes.errorbar(values, y, xerr=errors, label=name, **style)
    # Labels come from files: a dollar in one must not start a formula.
    axes.set_yticks(rows, [printable(method_label(results, method)) for method in methods], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(xlabel or METRIC_NAMES.get(metric, metric))
    if paper or len(results) > 1:
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(results) + 1)
    _quiet(axes, "x")
    return figure


def _label_ends(axes: "Axes", x: float, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each label beside the end of its line, moved up or down just enough not to overlap."""
    low, high = axes.get_ylim()
    gap = 0.045 * (high - low)
    ordered = sorted(ends)  # labels keep the order of their lines
    heights = np.array([end[0] for end in ordered])
    for _ in range(200):  # push neighbours apart until every pair has its gap
        lack = gap - np.diff(heights)
        if (lack <= 1e-9).all():
            break
        push = np.clip(lack, 0, None) / 2  # each of a pair gives way by half
        heights[:-1] -= push
        heights[1:] += push
    for (value, label, colour), height in zip(ordered, heights, strict=True):
        arrow = {
            "arrowstyle": "-",
            "color": colour,
            "lw": 0.8,
            "shrinkA": 1,
            "shrinkB": 3,
            "relpos": (0, 0.5),
        }
        text: dict[str, Any] = {"color": "#222222", "fontsize": 8, "va": "center", "annotation_clip": False}
        text["parse_math"] = False
        axes.annotate(printable(label), (x, value), xytext=(x + 0.45, height), arrowprops=arrow, **text)
    axes.set_ylim(min(low, heights.min() - gap), max(high, heights.max() + gap))


def _quiet(axes: "Axes", grid: Literal["x", "y"] = "y") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
