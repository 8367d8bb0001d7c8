"""Reports on embeddings: retrieval and clustering, each with an interval."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._check import (
    check_choice,
    check_count,
    check_finite,
    check_floating,
    check_labels,
    check_shape,
)
from retrieval_geometry.evaluation.clustering import normalized_mutual_information, pairwise_f1
from retrieval_geometry.evaluation.intervals import Interval, bootstrap_interval, seed_interval
from retrieval_geometry.evaluation.neighbours import nearest_neighbours, scaled_to_one
from retrieval_geometry.evaluation.retrieval import (
    CONVENTIONS,
    average_precision,
    precision_at_k,
    recall_at_k,
)

STARTS = 3
"""k-means is run from so many starts: its result moves with them."""

BLOCK = 2**24  # ranked labels held in memory at once


class Measure(NamedTuple):
    """A metric: values ``(Q,)`` of the queries, or of the starts of a clustering, and their mean.

    Used in chapter 11.
    """

    values: Tensor
    interval: Interval


def evaluate_embeddings(
    queries: Tensor,
    labels: Tensor,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    ks: Sequence[int] = (1, 2, 4, 8),
    metric: str = "euclidean",
    conventions: Sequence[str] = ("R", "k", "hits", "ranks"),
    clustering: bool = True,
    seed: int = 0,
) -> dict[str, Measure]:
    """Retrieval and clustering metrics of embeddings, each with its interval.

    Source: Musgrave et al. 2020 for the metrics; intervals over classes are this package's own. Derived in
    chapter 10.

    - ``"R@k"``: is one of the k nearest of the query's class (:func:`recall_at_k`);
    - ``"P@k"``: the share of the k nearest that are (:func:`precision_at_k`);
    - ``"P@R"``: the same at R, the number of images of the query's class in the gallery (R-precision);
    - ``"AP@R"``, ``"AP@8 (k)"``, ``"AP@8 (hits)"``, ``"AP@8 (ranks)"``, and on request ``"AP (full)"``:
      average precision by each of the ``conventions`` of :func:`average_precision`, at the largest k;
    - ``"NMI"`` and ``"F1"``: agreement of the classes with a k-means of the queries into as many clusters
      (:func:`normalized_mutual_information`, :func:`pairwise_f1`).

    The interval of a retrieval metric is a bootstrap over the classes of the queries (over the queries where
    there is one class); that of a clustering metric is Student's, over three starts of the k-means, and does
    not speak of the choice of the images.

    Args:
        queries: ``(Q, d)``, float32 or float64.
        labels: ``(Q,)`` integers.
        gallery: ``(n, d)``; None asks each query among the others.
        gallery_labels: ``(n,)`` integers.
        ks: the k of R@k and P@k.
        metric: ``"euclidean"`` or ``"cosine"``; under the cosine the clustering sees vectors of length one.
        conventions: of average precision; ``"full"`` ranks the whole gallery, which takes time.
        clustering: whether to cluster.
        seed: of the bootstrap and of the k-means.

    Raises:
        ValueError: as :func:`nearest_neighbours`; labels that do not go with the embeddings, one class only,
            a query whose class the gallery lacks (its average precision is undefined), or ks out of range.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> found = evaluate_embeddings(points, torch.tensor([0, 0, 1, 1]), ks=(1, 2))
        >>> [(name, round(measure.interval.value, 3)) for name, measure in found.items()][:4]
        [('R@1', 1.0), ('R@2', 1.0), ('P@1', 1.0), ('P@2', 0.5)]
    """
    check_floating(queries, "queries")
    check_finite(check_shape(queries, "queries", ("images", "dimensions")), "queries")
    check_count(seed, "seed", at_least=0, at_most=2**32 - 100)  # scikit-learn's limit, and some starts
    asked = check_labels(labels, len(queries)).cpu()
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels belong together: give both or neither")
    alone = gallery is None or gallery_labels is None
    pool = queries if gallery is None else gallery
    pool_labels = (
        asked if gallery_labels is None else check_labels(gallery_labels, len(pool), "gallery_labels").cpu()
    )
    n_relevant = _check_relevant(asked, pool_labels, alone)
    metrics = _retrieval_metrics(ks, conventions, len(pool) - alone)
    depth = len(pool) - alone if "full" in conventions else max(*ks, int(n_relevant.max()))
    parts: dict[str, list[Tensor]] = {name: [] for name in metrics}
    for rows in torch.arange(len(queries)).split(max(1, BLOCK // depth)):
        indices = nearest_neighbours(queries[rows], pool, depth, metric, rows if alone else None)[1]
        for name, compute in metrics.items():
            # One search serves all metrics: each reads the ranked labels.
            parts[name].append(compute(pool_labels[indices.cpu()], asked[rows], n_relevant[rows]))
    values = {name: torch.cat(part) for name, part in parts.items()}
    # Queries of one class are not independent: whole classes are drawn.
    groups = asked if len(asked.unique()) > 1 else None
    found = {
        name: Measure(part, bootstrap_interval(part, seed=seed, groups=groups))
        for name, part in values.items()
    }
    return found | (_clustering_metrics(queries, asked, metric, seed) if clustering else {})


Compute = Callable[[Tensor, Tensor, Tensor], Tensor]  # of ranked labels, query labels, relevant items


def _retrieval_metrics(ks: Sequence[int], conventions: Sequence[str], n: int) -> dict[str, Compute]:
    """The functions by the names of their metrics."""
    if not isinstance(ks, Sequence) or not ks:
        raise ValueError(f"ks must be the k of R@k and P@k, for example (1, 2, 4, 8), got {ks!r}")
    if not isinstance(conventions, Sequence) or isinstance(conventions, str):
        raise ValueError(f"conventions must be some of {list(CONVENTIONS)} in a tuple, got {conventions!r}")
    for k in ks:
        check_count(k, "each of ks", at_most=n)
    metrics: dict[str, Compute] = {f"R@{k}": partial(_at_k, recall_at_k, k) for k in ks}
    metrics |= {f"P@{k}": partial(_at_k, precision_at_k, k) for k in ks}
    metrics["P@R"] = _r_precision
    for name in conventions:
        check_choice(name, "conventions", CONVENTIONS)
        title = {"R": "AP@R", "full": "AP (full)"}.get(name, f"AP@{max(ks)} ({name})")
        metrics[title] = partial(_average_precision, name, None if name in ("R", "full") else max(ks))
    return metrics


def _at_k(
    compute: Callable[[Tensor, Tensor, int], Tensor], k: int, ranked: Tensor, labels: Tensor, _: Tensor
) -> Tensor:
    return compute(ranked, labels, k)


def _average_precision(
    convention: str, k: int | None, ranked: Tensor, labels: Tensor, n_relevant: Tensor
) -> Tensor:
    return average_precision(ranked, labels, convention, k, n_relevant)


def _r_precision(ranked: Tensor, labels: Tensor, n_relevant: Tensor) -> Tensor:
    within = torch.arange(ranked.shape[1]) < n_relevant[:, None]
    return ((ranked == labels[:, None]) & within).sum(dim=1) / n_relevant.double()


def _clustering_metrics(queries: Tensor, labels: Tensor, metric: str, seed: int) -> dict[str, Measure]:
    from sklearn.cluster import KMeans  # slow to import

    points = scaled_to_one(queries.detach().cpu(), dim=1 if metric == "cosine" else None)
    if metric == "cosine":
        points = functional.normalize(points, dim=1)
    n_clusters = len(labels.unique())
    starts = [
        KMeans(n_clusters, n_init=1, random_state=seed + start).fit_predict(points.numpy())
        for start in range(STARTS)
    ]
    agreements = {"NMI": normalized_mutual_information, "F1": pairwise_f1}
    found = {}
    for name, agreement in agreements.items():
        values = torch.tensor([agreement(labels, clusters) for clusters in starts], dtype=torch.float64)
        found[name] = Measure(values, seed_interval(values))
    return found


def _check_relevant(labels: Tensor, pool_labels: Tensor, alone: bool) -> Tensor:
    """Number of images of its class that each query can find, ``(Q,)``, at least one."""
    classes, sizes = pool_labels.unique(return_counts=True)
    if len(classes) < 2:
        raise ValueError(
            "all embeddings that are searched are of one class: every ranking of them is perfect"
        )
    # Without itself: a query in the gallery has R = n - 1.
    place = torch.searchsorted(classes, labels).clamp(max=len(classes) - 1)
    counts = torch.where(classes[place] == labels, sizes[place], 0) - int(alone)
    if int(counts.min()) < 1:
        query = int(counts.argmin())
        raise ValueError(
            f"query {query} (label {int(labels[query])}) has no other image of its class to find; leave such "
            "queries out"
        )
    return counts
