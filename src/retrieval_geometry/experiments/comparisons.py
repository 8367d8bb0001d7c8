"""From results to comparisons: differences of methods, with intervals over groups of queries and models."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_geometry.evaluation import GroupMeans, mean_difference
from retrieval_geometry.reporting.details import Dealt, Rows, Transport
from retrieval_geometry.reporting.findings import Comparison, Verdict
from retrieval_geometry.reporting.measured import Groups
from retrieval_geometry.reporting.results import (
    Result,
    ResultError,
)


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison: its name, its means over groups, and how many models were trained for it."""

    label: str
    means: GroupMeans
    models: int | None = None


def side(result: Result, method: str, metric: str) -> Side:
    """The metrics of a method, for each group of queries.

    Args:
        result: of any experiment that keeps groups.
        method: by its name.
        metric: ``P@k`` of rankings; one that trained models keep by groups; ``variation``, ``noise`` or
            ``found`` of single images.

    Raises:
        ResultError: the result has no such numbers.
    """
    entry, groups = result[method], _groups(result)
    # Of trained models: rows are models, so that the interval speaks of other seeds too.
    if entry.models is not None and metric in entry.models.by_group:
        rows = entry.models.by_group[metric]
        return _of_rows(entry.label, rows, groups.sizes, len(rows) if entry.models.trained else None)
    # Of rankings without training: P@k for any k up to the recorded one.
    if entry.relevance is not None and metric.startswith("P@"):
        values = entry.relevance.precision(int(metric.removeprefix("P@")))
        return Side(entry.label, GroupMeans.of(values, np.array(groups.of_query)))
    if isinstance(result.details, Dealt) and metric in ("variation", "noise", "found"):
        values = getattr(result.details.images[method], metric)
        return Side(entry.label, GroupMeans.of(values, np.array(groups.of_query)))
    raise ResultError(f"{result.experiment} ({result.profile}) keeps no {metric} of {method!r} by groups")


def transport_sides(result: Result, transport: Transport, name: str, metric: str) -> tuple[Side, Side]:
    """The models of a loss on measures, asked by the transport distance, and by the means of its features."""
    ways = {"by transport": transport.by_transport, "by means": transport.by_mean}
    rows = {way: found[name][metric] for way, found in ways.items()}
    one, other = (
        _of_rows(f"{result[name].label} {way}", models, transport.sizes, len(models))
        for way, models in rows.items()
    )
    return one, other


def other_side(result: Result, transport: Transport, name: str, metric: str) -> Side:
    """All models of a loss by mean vectors, for those queries that the transport distance was asked."""
    rows = transport.others[name][metric]
    return _of_rows(result[name].label, rows, transport.sizes, len(rows))


def difference(
    first: Side, second: Side, metric: str, at_once: int = 1, group_name: str = "classes", bound: float = 0.0
) -> Comparison:
    """The first side minus the second: a 95 % interval that holds together with ``at_once - 1`` others."""
    # Bonferroni: each of n intervals at 1 - 0.05 / n, so that all hold together with 95 %.
    found = mean_difference(first.means, second.means, comparisons=at_once)
    # The side with fewer models says how far the difference reaches.
    trained = [s.models for s in (first, second) if s.models is not None]
    return Comparison(
        first.label,
        second.label,
        metric,
        *found,
        queries=first.means.n,
        groups=len(first.means.sizes),
        group_name=group_name,
        models=min(trained, default=None),
        at_once=at_once,
        bound=bound,
    )


def compare(
    result: Result, triples: Iterable[tuple[str, str, str]], bound: float = 0.0, runs: int = 1
) -> list[Comparison]:
    """First method minus second in a metric, for each triple of these; all intervals hold at once.

    With ``runs`` above 1 they hold together with as many of each of the other runs.
    """
    triples = list(triples)
    name, at_once = _groups(result).name, runs * len(triples)
    return [
        difference(side(result, first, metric), side(result, second, metric), metric, at_once, name, bound)
        for first, second, metric in triples
    ]


def against_each(
    result: Result, first: str, others: Sequence[str], metrics: Sequence[str], reverse: bool = False
) -> dict[str, dict[str, Comparison]]:
    """A method minus each other in each metric (each other minus it, if ``reverse``), all at once."""
    pairs = [(other, first) if reverse else (first, other) for other in others]
    found = compare(result, [(*pair, metric) for pair in pairs for metric in metrics])
    # In the order in which they were asked for.
    rows = iter(found)
    return {other: {metric: next(rows) for metric in metrics} for other in others}


def tally(comparisons: Iterable[Comparison]) -> tuple[int, int, int]:
    """How many are decided for the first, open, and decided for the second."""
    found = Counter(comparison.verdict for comparison in comparisons)
    return found[Verdict.REPRODUCED], found[Verdict.INCONCLUSIVE], found[Verdict.CONTRADICTED]


def by_metric(comparisons: Iterable[Comparison]) -> Mapping[str, list[Comparison]]:
    """The same comparisons, those of each metric together."""
    found: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        found.setdefault(comparison.metric, []).append(comparison)
    return found


def _of_rows(label: str, rows: Rows, sizes: Sequence[int], models: int | None) -> Side:
    return Side(label, GroupMeans(np.array(rows), np.array(sizes)), models)


def _groups(result: Result) -> Groups:
    if result.groups is None:
        raise ResultError(
            f"{result.experiment} ({result.profile}) does not say which queries belong together"
        )
    return result.groups
