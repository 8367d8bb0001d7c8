"""Parts of figures that come again in the book: each draws into given axes, in the house style.

The axes come from :func:`~retrieval_geometry.reporting.figures.new_figure`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval_geometry.reporting.figures import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = OKABE_ITO
GRAY = "#555555"


def interval_rows(
    axes: "Axes", found: Sequence[Any], names: Sequence[str], colours: Sequence[str] | str = BLUE
) -> None:
    """A row for each name, from below: a dot between ``low`` and ``high``, or nothing for None."""
    for y, (interval, colour) in enumerate(zip(found, _each(colours, len(found)), strict=True)):
        if interval is not None:
            axes.plot([interval.low, interval.high], [y, y], color=colour, lw=1.5)
            axes.plot(interval.value, y, "o", color=colour, ms=5)
    axes.set_yticks(range(len(names)), list(names))
    axes.grid(axis="x", color="#dddddd", lw=0.6)


def two_heaps(
    axes: "Axes",
    edges: Any,
    matching: Any,
    other: Any,
    names: tuple[str, str] | None = ("matching", "other"),
) -> None:
    """Two histograms on the same bins: one filled, one as a dashed line.

    Args:
        axes: to draw into.
        edges: of the bins, shape (n + 1,).
        matching: heights of the filled one, shape (n,).
        other: heights of the dashed one, shape (n,).
        names: of both for a legend; None for no names.
    """
    labels = names or (None, None)
    axes.stairs(matching, edges, fill=True, color=BLUE, alpha=0.45, label=labels[0])
    axes.stairs(other, edges, color=VERMILION, ls="--", lw=1.6, label=labels[1])


def heat_map(
    axes: "Axes", values: Any, rows: Sequence[str], columns: Sequence[str], low: float, high: float
) -> None:
    """Rounded numbers on colours from ``low`` to ``high``; a cross on white where a value is not finite.

    Args:
        axes: to draw into.
        values: of shape (rows, columns).
        rows: names of the rows, from above.
        columns: names of the columns.
        low: value of the darkest colour.
        high: value of the brightest colour.
    """
    table = np.asarray(values, dtype=float)
    missing = ~np.isfinite(table)
    axes.imshow(np.where(missing, np.nan, table), cmap="cividis", vmin=low, vmax=high, aspect="auto")
    bright = missing | (table > (low + high) / 2 + 1)  # black on these is legible
    for (i, j), value in np.ndenumerate(table):
        text = "×" if missing[i, j] else f"{value:.0f}"
        colour = "black" if bright[i, j] else "white"
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_xticks(range(len(columns)), list(columns), fontsize=9)


def framed_images(panels: Iterable["Axes"], images: Iterable[Any], frames: Sequence[Mapping | None]) -> None:
    """Images beside each other, some with a frame; panels that get none vanish.

    Args:
        panels: one for each image, or more.
        images: of shape (3, height, width).
        frames: for each image the look of its frame, such as ``{"color": BLUE, "lw": 2}``; None for none.
    """
    panels = list(panels)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    for panel, image, frame in zip(panels, images, frames, strict=False):
        panel.imshow(np.moveaxis(np.asarray(image), 0, 2))
        if frame is not None:
            panel.spines[:].set(visible=True, **frame)


def bare(axes: "Axes") -> None:
    """A picture of points: both axes of one scale, without numbers."""
    axes.set(xticks=[], yticks=[], aspect="equal")


def _each(colours: Sequence[str] | str, count: int) -> Sequence[str]:
    return [colours] * count if isinstance(colours, str) else colours
