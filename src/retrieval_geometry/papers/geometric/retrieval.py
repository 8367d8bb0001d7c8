"""Rank a setting's images by a method, and score the rankings."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.distances.search import PRUNED, rank
from retrieval_geometry.evaluation import (
    GroupMeans,
    Interval,
    average_precision,
    mean_interval,
    precision_at_k,
    query_draw_interval,
)
from retrieval_geometry.evaluation.intervals import Values
from retrieval_geometry.evaluation.neighbours import ascending
from retrieval_geometry.papers.geometric.data import Setting
from retrieval_geometry.papers.geometric.methods import Method
from retrieval_geometry.reporting.measured import Metric, Relevance
from retrieval_geometry.reporting.results import MethodResult
from retrieval_geometry.reporting.tables import format_seconds

K = 10
"""Neighbours that are looked at, as in the paper."""

TIMED = (4, 50)
"""So many queries and database images are timed where the search does not compare all pairs."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """The ``k`` nearest images of every query, ``(Q, k)`` indices of the image set, and the time it took."""

    nearest: Tensor
    seconds_per_comparison: float
    notes: tuple[str, ...]


def rank_setting(method: Method, models: Any, setting: Setting, k: int = K) -> Nearest:
    """Rank the database of a setting for each of its queries by one method."""
    p, q = (method.view(part) for part in setting.split(models))
    # All pairs at once, which also times a comparison best.
    if method.distance not in PRUNED:
        seconds, distances = timed(method.compare, p, q)
        return nearest_by_distance(distances, seconds, setting, k)
    some_p, some_q = _spread(len(p), TIMED[0]), _spread(len(q), TIMED[1])
    # A search picks the pairs that it compares, the near ones: these are spread evenly instead.
    seconds, _ = timed(method.compare, p[some_p], q[some_q])
    n_timed, n_pairs = len(some_p) * len(some_q), len(p) * len(q)
    # One neighbour more than is looked at: the query itself may be the nearest.
    searching, found = timed(rank, p, q, method.distance, min(k + 1, len(q)))
    nearest = drop_own(setting.database[found.indices.cpu()], setting.queries)
    share = float(found.evaluated.double().mean()) / len(q)
    return Nearest(
        nearest,
        seconds / n_timed,
        (
            f"time of a comparison: mean over {n_timed} pairs",
            f"exact search: bounds leave {100 * share:.1f} % of the pairs to compare, "
            f"{format_seconds(searching / n_pairs)} a pair in all",
        ),
    )


def _spread(length: int, count: int) -> list[int]:
    """At most ``count`` positions, evenly spread."""
    return list(range(0, length, -(-length // count)))


def drop_own(nearest: Tensor, queries: Tensor) -> Tensor:
    """Take each query out of its own ranking ``(Q, k + 1)``, or else the last image: ``(Q, k)``."""
    own = nearest == queries.unsqueeze(1)
    # A query beyond its k + 1 nearest, or of no database, loses the last one: all rows stay of one length.
    own[:, -1] |= ~own.any(dim=1)
    return nearest[~own].view(len(nearest), -1)


def nearest_by_distance(distances: Tensor, seconds: float, setting: Setting, k: int = K) -> Nearest:
    """The ranking by all distances ``(Q, n)``, which took so many seconds; ties as in :func:`ascending`."""
    n_pairs = len(setting.queries) * len(setting.database)
    own = setting.queries.unsqueeze(1) == setting.database
    # Infinity, not a mask afterwards: the ranking keeps its length.
    distances = distances.cpu().masked_fill(own, torch.inf)
    nearest = ascending(distances)[:, :k]
    note = f"time of a comparison: mean over all {n_pairs} pairs"
    return Nearest(setting.database[nearest], seconds / n_pairs, (note,))


def score(
    method: Method,
    ranking: Nearest,
    setting: Setting,
    seconds_model: float | None,
    notes: tuple[str, ...],
) -> MethodResult:
    """P@1, P@5, P@10 and AP@10 with intervals over the classes of the queries."""
    labels = setting.images.labels
    ranked, asked, n_relevant = labels[ranking.nearest], setting.query_labels, setting.n_relevant
    values = {f"P@{k}": precision_at_k(ranked, asked, k) for k in (1, 5, K)}
    # Cut at k, a ranking shows at most k of the relevant: the convention counts as many as it could.
    values[f"AP@{K}"] = average_precision(ranked, asked, convention="k", k=K, n_relevant=n_relevant)
    intervals = {name: share_interval(value, asked) for name, value in values.items()}
    return MethodResult(
        method=method.name,
        label=method.label,
        metrics={name: as_metric(interval, len(asked)) for name, interval in intervals.items()},
        seconds_per_comparison=_rounded(ranking.seconds_per_comparison),
        seconds_model=_rounded(seconds_model),
        relevance=Relevance.pack((ranked == asked.unsqueeze(1)).numpy()),
        notes=(*notes, *ranking.notes),
    )


def share_interval(values: Values, classes: Values) -> Interval:
    """The mean of shares of single queries with its interval over their classes, inside 0 to 1."""
    # Student's interval does not know that a share ends at 0 and at 1.
    value, low, high = mean_interval(GroupMeans.of(values, classes))
    return Interval(value, max(low, 0.0), min(high, 1.0))


def draws(entry: MethodResult, setting: Setting, per_class: int = 2) -> dict[str, tuple[float, ...]]:
    """How P@k moves with the choice of ``per_class`` queries of each class: value, low, high for each k."""
    assert entry.relevance is not None
    found = {}
    for k in (1, 5, K):
        interval = query_draw_interval(entry.relevance.precision(k), setting.query_labels, per_class)
        found[f"P@{k}"] = tuple(round(part, 4) for part in interval)
    return found


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of a call, and its result: CPU time, which other programs do not inflate.

    Where there is a GPU it is wall-clock time, and the GPU is waited for.
    """
    on_gpu = torch.cuda.is_available()
    clock = time.perf_counter if on_gpu else time.process_time
    start = clock()
    result = function(*arguments)
    if on_gpu:  # GPU: kernels are only queued when a call returns
        torch.cuda.synchronize()
    return clock() - start, result


def as_metric(interval: Interval, n: int) -> Metric:
    """An interval over ``n`` queries, rounded as in a result file."""
    value, low, high = (round(part, 6) for part in interval)
    return Metric(value, low, high, n)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else float(f"{seconds:.3g}")
