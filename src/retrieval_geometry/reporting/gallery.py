"""Pictures of queries and their neighbours: Figure 2 of the paper, and the plot of the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retrieval_geometry.reporting.details import Ranked
from retrieval_geometry.reporting.figures import RIGHT, WRONG, new_figure
from retrieval_geometry.reporting.lettering import lettering
from retrieval_geometry.reporting.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_WIDTH = 7.4
"""Inches of a figure whose text has its own size on a page of the book."""


@dataclass(frozen=True)
class Neighbour:
    """One retrieved picture: pixels (H, W, 3), a caption, and whether it is right (None: unknown)."""

    picture: np.ndarray
    caption: str = ""
    right: bool | None = None


class Images(Protocol):
    """The part of an image set that a gallery reads."""

    ids: tuple[str, ...]

    def load(self, index: int) -> Any:
        """The image as an unsigned 8-bit array or tensor (3, H, W)."""
        ...


def neighbour_rows(query: Neighbour, rows: Mapping[str, Sequence[Neighbour]], size: float = 0.78) -> "Figure":
    """The query at the left and, in one row for each method, its nearest pictures in order.

    A solid blue frame marks a right answer, a dashed orange one with a cross a wrong one.
    """
    return neighbour_grid([(label, query, row) for label, row in rows.items()], size)


def neighbour_grid(
    rows: Sequence[tuple[str, Neighbour, Sequence[Neighbour]]], size: float = 0.78
) -> "Figure":
    """The same for rows that have each a label and a query of its own."""
    longest = max(len(row) for _, _, row in rows)
    captions = any(item.caption for _, _, row in rows for item in row)
    width = size * (longest + 1) + 1.5
    text = max(8.0, 9.5 * width / PAGE_WIDTH)  # a wide figure is shrunk to the page, and its labels with it
    figure = new_figure(width, (size + (0.32 if captions else 0.05)) * len(rows) + 0.3)
    grid = figure.subplots(len(rows), longest + 1, squeeze=False)
    for i, (label, query, row) in enumerate(rows):
        for axes in grid[i]:
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_frame_on(False)
        _picture(grid[i, 0], query)
        drawn, style = lettering(fill(label, 14))
        grid[i, 0].set_ylabel(drawn, rotation=0, ha="right", va="center", fontsize=text, **style)
        for axes, item in zip(grid[i, 1:], row, strict=False):
            _picture(axes, item)
    place = {"xycoords": "axes fraction", "ha": "center", "va": "bottom", "fontsize": text}
    grid[0, 0].annotate("query", (0.5, 1.04), **place)
    return figure


def gallery(
    result: Result, images: Images, query: int = 0, methods: Sequence[str] | None = None, k: int = 10
) -> "Figure":
    """A query of the recorded gallery and its ``k`` nearest under each method, as Figure 2 of [geometric]."""
    recorded = result.details.gallery if isinstance(result.details, Ranked) else None
    if recorded is None:
        raise ValueError(f"{result.experiment} ({result.profile}) has recorded no neighbours for a gallery")
    # Results hold names, no pixels: whoever has the images can draw them.
    index = {name: i for i, name in enumerate(images.ids)}
    queries, neighbours = recorded.queries, recorded.neighbours
    if not 0 <= query < len(queries):
        raise ValueError(f"query must be between 0 and {len(queries) - 1}, got {query}")
    wanted = queries[query]
    rows = {}
    for name in methods or [entry.method for entry in result.methods if entry.method in neighbours]:
        found = neighbours[name][query][:k]
        pictures = [pixels(images.load(index[item])) for item in found]
        right = [_class_of(item) == _class_of(wanted) for item in found]
        rows[result[name].label] = [Neighbour(p, right=r) for p, r in zip(pictures, right, strict=True)]
    return neighbour_rows(Neighbour(pixels(images.load(index[wanted]))), rows)


def pixels(image: Any) -> np.ndarray:
    """An image tensor (3, H, W) as an array (H, W, 3) for drawing."""
    return np.moveaxis(np.asarray(image), 0, -1)


def _class_of(image_id: str) -> str:
    # Ids are class/file; where there is no folder all are of one class.
    return image_id.rsplit("/", 1)[0] if "/" in image_id else ""


def _picture(axes: "Axes", item: Neighbour) -> None:
    axes.imshow(item.picture, interpolation="antialiased")
    if item.caption:
        drawn, style = lettering(item.caption)
        axes.set_xlabel(drawn, fontsize=6, **style)
    if item.right is None:
        return
    axes.set_frame_on(True)
    line = "-" if item.right else "--"
    # Style and colour say the same, as everywhere.
    axes.spines[:].set(visible=True, color=RIGHT if item.right else WRONG, lw=2.2, ls=line)
    if not item.right:
        place: dict[str, Any] = {"ha": "center", "va": "center", "transform": axes.transAxes}
        disc: dict[str, Any] = {"boxstyle": "circle,pad=0.1", "color": WRONG}
        axes.text(0.93, 0.9, "×", color="white", fontsize=9, bbox=disc, **place)
