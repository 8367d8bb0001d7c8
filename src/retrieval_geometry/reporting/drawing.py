"""Parts of figures that several chapters draw: lines, histograms, pairs, intervals, heat maps, pictures.

Each function draws on the axes that it is given. Whatever colour says, line style or marker says again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from retrieval_geometry.reporting.figures import LINE_STYLES, MARKERS, OKABE_ITO, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = OKABE_ITO


class Interval(Protocol):
    """A value between two ends."""

    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102


def draw_lines(
    axes: "Axes",
    x: Any,
    curves: Mapping[str, Any],
    colours: Sequence[str] = OKABE_ITO,
    styles: Sequence[str] = LINE_STYLES,
    marked: bool = False,
    **options: Any,
) -> None:
    """One line for each curve, by name, each in its own colour and style.

    Args:
        axes: where to draw.
        x: places along the horizontal axis, the same for all curves; None: 0, 1, 2, ...
        curves: heights of each curve, by the name that a legend shows.
        colours: of the curves in turn.
        styles: line styles in turn.
        marked: whether points have markers, each curve its own.
        options: of ``Axes.plot``, such as ``lw``.
    """
    looks = _looks(colours, styles)
    for (name, values), (colour, style, marker) in zip(curves.items(), looks, strict=False):
        places = np.arange(len(values)) if x is None else x
        look: dict[str, Any] = {"color": colour, "ls": style, "lw": 1.8, "label": name, "ms": 4}
        axes.plot(places, values, marker=marker if marked else "", **(look | options))


def draw_histograms(
    axes: "Axes",
    samples: Mapping[str, Any],
    bins: Any = 40,
    colours: Sequence[str] = OKABE_ITO,
    styles: Sequence[str] = LINE_STYLES,
) -> None:
    """Outlines of the densities of samples, of any shape, by name; ``bins`` as in ``Axes.hist``."""
    for (name, sample), (colour, style, _) in zip(samples.items(), _looks(colours, styles), strict=False):
        look: dict[str, Any] = {"color": colour, "ls": style, "lw": 1.8, "label": name}
        axes.hist(np.asarray(sample).ravel(), bins, density=True, histtype="step", **look)


def draw_pairs(
    axes: "Axes",
    x: Any,
    y: Any,
    matching: Any,
    names: tuple[str, str] = ("matching", "others"),
    most: int | None = None,
    **options: Any,
) -> None:
    """A point for each pair: blue circles for matching ones, orange triangles for others.

    Args:
        axes: where to draw.
        x: places of the pairs, as many numbers as pairs.
        y: heights of the pairs.
        matching: whether a pair is of one class.
        names: of the two kinds in a legend.
        most: of each kind only about so many are drawn, evenly chosen; None: all.
        options: of ``Axes.scatter``, such as ``s``.
    """
    x, y, matching = (np.asarray(values) for values in (x, y, matching))
    # Others first: the matching ones, which are few, lie on top.
    kinds = ((~matching, WRONG, "^", names[1]), (matching, RIGHT, "o", names[0]))
    for kind, colour, marker, name in kinds:
        shown = np.flatnonzero(kind)
        # Ten thousand points hide each other, and make a page of megabytes.
        shown = shown[:: max(1, len(shown) // most) if most else 1]
        look: dict[str, Any] = {
            "s": 9,
            "lw": 0,
            "alpha": 0.5,
            "color": colour,
            "marker": marker,
            "label": name,
        }
        axes.scatter(x[shown], y[shown], **(look | options))


def draw_intervals(
    axes: "Axes",
    intervals: Sequence[Interval],
    rows: Any = None,
    names: Sequence[str] | None = None,
    colour: str = OKABE_ITO[0],
    marker: str = "o",
    **options: Any,
) -> None:
    """A marker and a horizontal bar for each interval, the first one on top.

    Args:
        axes: where to draw.
        intervals: anything with a value between two ends.
        rows: heights of the intervals; None: 0, 1, 2, ... downwards.
        names: labels of the heights 0, 1, 2, ...; None: they are left as they are.
        colour: of all.
        marker: of the values.
        options: of ``Axes.errorbar``, such as ``elinewidth``.
    """
    rows = np.arange(len(intervals)) if rows is None else rows
    values, low, high = np.array([(one.value, one.low, one.high) for one in intervals]).T
    # Rounding may put an end on the wrong side of its value, which matplotlib refuses.
    reach = np.clip([values - low, high - values], 0, None)
    look: dict[str, Any] = {"fmt": marker, "color": colour, "ms": 4, "lw": 1.5, "capsize": 3}
    axes.errorbar(values, rows, xerr=reach, **(look | options))
    if names is not None:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)


def draw_models(
    axes: "Axes", place: float, values: Any, colour: str, marker: str, name: str | None = None
) -> None:
    """What each of a few models reached, as small marks above one place, and their mean as a large one.

    Args:
        axes: where to draw.
        place: on the horizontal axis.
        values: of the models.
        colour: of all marks.
        marker: of all marks.
        name: of the mean in a legend; None: it has none.
    """
    values = np.asarray(values)
    axes.scatter(np.full(len(values), place), values, s=18, color=colour, marker=marker, alpha=0.6, lw=0)
    axes.scatter(place, values.mean(), s=70, color=colour, marker=marker, label=name)


def close_frame(axes: "Axes") -> None:
    """Lines on all four sides, where a panel is a picture or a map and has no scales to lead the eye."""
    axes.spines[:].set_visible(True)


def draw_heat(axes: "Axes", table: Any, cuts: Sequence[float] = (), **options: Any) -> None:
    """A table as a picture without ticks, with thin lines where classes end.

    Args:
        axes: where to draw.
        table: numbers (rows, columns).
        cuts: rows, and columns, before which a thin line is drawn.
        options: of ``Axes.imshow``, such as ``cmap``.
    """
    axes.imshow(np.asarray(table), **options)
    close_frame(axes)
    axes.set(xticks=[], yticks=[])
    for cut in cuts:
        axes.axhline(cut - 0.5, color="gray", lw=0.3)
        axes.axvline(cut - 0.5, color="gray", lw=0.3)


def draw_heaps(
    axes: "Axes", edges: Any, matching: Any, other: Any, names: tuple[str, str] = ("matching", "other")
) -> None:
    """Two histograms on the same bins: matching filled, others as a dashed line.

    Args:
        axes: where to draw.
        edges: of the bins, one more than there are bins.
        matching: heights over the bins.
        other: heights over the bins.
        names: of the two in a legend.
    """
    axes.stairs(matching, edges, fill=True, color=RIGHT, alpha=0.45, label=names[0])
    axes.stairs(other, edges, color=WRONG, ls="--", lw=1.6, label=names[1])


def draw_digits(
    axes: "Axes", table: Any, rows: Sequence[str], columns: Sequence[str], low: float, high: float
) -> None:
    """A table as rounded numbers on colours; a cross on white where a number is not finite.

    Args:
        axes: where to draw.
        table: numbers (rows, columns).
        rows: names of the rows, from above.
        columns: names of the columns.
        low: number of the darkest colour.
        high: number of the brightest colour.
    """
    table = np.asarray(table, dtype=float)
    missing = ~np.isfinite(table)
    axes.imshow(np.where(missing, np.nan, table), cmap="cividis", vmin=low, vmax=high, aspect="auto")
    close_frame(axes)
    for (i, j), value in np.ndenumerate(table):
        bright = missing[i, j] or value > (low + high) / 2 + 1  # black is legible on it
        look: dict[str, Any] = {"ha": "center", "va": "center", "color": "black" if bright else "white"}
        axes.text(j, i, "×" if missing[i, j] else f"{value:.0f}", fontsize=9, **look)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_xticks(range(len(columns)), list(columns), fontsize=9)


def draw_framed(
    row: Iterable["Axes"], pictures: Sequence[Any], frames: Sequence[Mapping[str, Any] | None]
) -> None:
    """Pictures ``(3, H, W)`` on a row of axes, some in a frame; axes without a picture vanish.

    Args:
        row: axes, at least as many as pictures.
        pictures: from the left.
        frames: the look of each frame, such as ``{"color": BLUE, "lw": 2}``; None for no frame.
    """
    row = list(row)
    for axes in row:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, picture, frame in zip(row, pictures, frames, strict=False):
        axes.imshow(np.moveaxis(np.asarray(picture), 0, -1))
        if frame is not None:
            axes.spines[:].set(visible=True, **frame)


def draw_pictures(block: Any, rows: Sequence[Sequence[Any]]) -> None:
    """Pictures ``(3, H, W)`` in rows, on a figure or subfigure of their own."""
    columns = max(len(row) for row in rows)
    for place, row in enumerate(rows):
        for column, picture in enumerate(row):
            axes = block.add_subplot(len(rows), columns, columns * place + column + 1)
            axes.imshow(np.moveaxis(np.asarray(picture), 0, -1))
            axes.set_axis_off()


def ellipse(cov: Any, mean: Any = (0.0, 0.0), radius: float = 1.0) -> np.ndarray:
    """Points (2, 100) that are ``radius`` standard deviations from the mean of a Gaussian in the plane."""
    angle = np.linspace(0, 2 * np.pi, 100)
    values, vectors = np.linalg.eigh(np.asarray(cov))
    # Eigenvalues, not Cholesky: a flat ellipse is one too.
    factor = vectors * np.sqrt(np.clip(values, 0, None))
    return np.asarray(mean)[:, None] + factor @ (radius * np.stack([np.cos(angle), np.sin(angle)]))


def draw_picture(axes: "Axes", picture: Any, name: str = "", side: str = "left") -> None:
    """A picture ``(3, H, W)`` without frame and ticks, with its name at the ``left`` or ``bottom``."""
    axes.imshow(np.moveaxis(np.asarray(picture), 0, -1))
    axes.set(xticks=[], yticks=[], **{"ylabel" if side == "left" else "xlabel": name})
    axes.spines[:].set_visible(False)


def draw_values(axes: "Axes", table: Any, names: Sequence[str], digits: int = 2, **options: Any) -> None:
    """A square table as a heat map with its numbers written in.

    Args:
        axes: where to draw.
        table: numbers (n, n) between 0 and 1.
        names: of rows and columns.
        digits: decimals of the numbers.
        options: of ``Axes.imshow``, such as ``cmap``.
    """
    shading: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1}
    axes.imshow(np.asarray(table), **(shading | options))
    close_frame(axes)
    for (i, j), value in np.ndenumerate(np.asarray(table)):
        look: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": "black" if value > 0.6 else "white",
            "fontsize": 9,
        }
        axes.text(j, i, f"{value:.{digits}f}", **look)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.tick_params(length=0)


def shared_legend(figure: "Figure", ncols: int = 4, **options: Any) -> None:
    """One legend above all axes of a figure, each name once."""
    # By name: a curve that several panels share is named once.
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    # "outside": the layout makes room for it, whatever the axes hold.
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": ncols, "frameon": False, "fontsize": 9}
    figure.legend(list(handles.values()), list(handles), **(place | options))


def _looks(colours: Sequence[str], styles: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Colour, line style and marker of one curve after the other."""
    # Seven colours and four styles have no common divisor: 28 curves differ.
    return zip(cycle(colours), cycle(styles), cycle(MARKERS), strict=False)
