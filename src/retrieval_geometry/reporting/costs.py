"""Tables and lines of the benchmarks: the package beside its peers, exact searches, and how costs grow."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from retrieval_geometry.reporting.details import CostCurve, CostRow, CostSide
from retrieval_geometry.reporting.tables import format_seconds, markdown_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def best_peer(row: CostRow) -> CostSide | None:
    """The fastest usable peer of a row, if it has one."""
    return next((side for side in row.peers if side.name == row.best), None)


def work_name(row: CostRow) -> str:
    """The timed work; point sets of different sizes are told apart."""
    # One kind of work was timed at two sizes, which the text alone does not tell apart.
    points = re.match(r"n = (\d+), d = ", row.conditions)
    return f"{row.work}, {points[1]} points an image" if points else row.work


def seconds_with_preparation(side: CostSide, queries: int, database: int) -> float:
    """Seconds of one of all ``queries * database`` pairs, with its share of preparing both sides."""
    # An image is prepared once and compared many times: its share shrinks as the lists grow.
    prepare = side.prepare.seconds if side.prepare else 0.0
    return side.time.seconds + prepare * (queries + database) / (queries * database)


def cost_table(rows: Sequence[CostRow]) -> str:
    """Time and error of the package and of the best peer, the ratio, the mark, the share of a product."""
    cells = []
    for row in rows:
        peer = best_peer(row)
        times = [format_seconds(row.ours.time.seconds), peer.name if peer else "–"]
        times += [format_seconds(peer.time.seconds if peer else None), _times(row.ratio), _times(row.mark)]
        share = "–" if row.gemm_share is None else f"{row.gemm_share:.0%}"
        cells.append([f"{work_name(row)} ({row.unit})", *times, _error(row.ours), _error(peer), share])
    header = ["Work", "ours", "best library", "its time", "ratio", "mark"]
    return markdown_table([*header, "our error", "its error", "of a product"], cells)


def search_table(rows: Sequence[CostRow]) -> str:
    """Time a pair of exact searches, the share of distances computed, and whether the answer is exact."""
    cells = []
    for row in rows:
        memory = "–" if row.memory_mb is None else f"{row.memory_mb / 1000:.1f} GB"
        found = [f"{row.evaluated:.1%}", "yes" if row.identical else "NO", row.best or "–"]
        ratios = [_times(row.ratio), _times(row.mark), memory]
        cells.append([work_name(row), format_seconds(row.ours.time.seconds), *found, *ratios])
    header = ["Search", "time a pair", "computed", "full sort's answer", "best library"]
    return markdown_table([*header, "ratio", "mark", "memory"], cells)


def growth_table(curves: Mapping[str, CostCurve], counted: Mapping[str, str]) -> str:
    """Powers of the growth with the size: what counting operations predicts, ours, and the best peer's."""
    cells = []
    for key, power in counted.items():
        curve = curves[key]
        sizes = f"{curve.sizes[0]:,} to {curve.sizes[-1]:,}"
        powers = (curve.exponents.get(side) for side in ("ours", "peer"))
        fitted = ["–" if value is None else f"{value:.1f}" for value in powers]
        cells.append([curve.work, curve.over, sizes, power, *fitted])
    return markdown_table(["Work", "over", "sizes", "operations", "ours", "library"], cells)


def commits_table(rows: Sequence[CostRow], curves: Sequence[CostCurve]) -> str:
    """Which rows and curves were measured at which commit."""
    measured: dict[str, list[str]] = {}
    for row in rows:
        measured.setdefault(row.commit[:12], []).append(work_name(row))
    for curve in curves:
        measured.setdefault(curve.commit[:12], []).append(f"{curve.work} over {curve.over}")
    cells = [[commit, "; ".join(names)] for commit, names in measured.items()]
    return markdown_table(["Commit", "measured with it"], cells, words=2)


def missed_marks(rows: Sequence[CostRow]) -> str:
    """The rows that are less faster than a peer than was set out, in words; "none" if there is none."""
    missed = [row for row in rows if row.mark and row.ratio and row.ratio < row.mark]
    words = (f"{work_name(row)} ({_times(row.ratio)} of {_times(row.mark)})" for row in missed)
    return "; ".join(words) or "none"


def draw_growth(axes: "Axes", curve: CostCurve, label: str, colour: str) -> None:
    """Milliseconds over the size on logarithmic axes: ours solid, and the best peer's dashed."""
    for side, style in (("ours", "-"), ("peer", "--")):
        if side in curve.seconds:
            times = [1e3 * seconds for seconds in curve.seconds[side]]
            name = label if side == "ours" else None
            axes.loglog(curve.sizes, times, style, marker="o", ms=3, lw=1.5, color=colour, label=name)
    axes.set_xticks(curve.sizes[::2], [f"{size:,}" for size in curve.sizes[::2]])
    # Ticks stand at the sizes: those of the decades would crowd them.
    axes.minorticks_off()


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×"


def _error(side: CostSide | None) -> str:
    return "–" if side is None or side.error is None else f"{side.error:.0e}" if side.error else "0"
