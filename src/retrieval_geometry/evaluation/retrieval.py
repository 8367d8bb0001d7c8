"""Precision, recall and the many average precisions of a ranking.

A ranking is given as the labels of the retrieved items, nearest first, ``(Q, n)``, one row per query; an item
is relevant where its label is the query's. Where queries and database are one set, leave the query itself out
of its ranking before it comes here. All functions return one value per query, in float64, so that an interval
can be put around their mean.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import as_whole, check_choice, check_count, check_shape


def precision_at_k(ranked_labels: Tensor, query_labels: Tensor, k: int) -> Tensor:
    """Share of the k nearest items that are relevant, ``(Q,)`` in [0, 1].

    Source: Manning et al. 2008, section 8.4. Derived in chapter 1.

    Args:
        ranked_labels: ``(Q, n)`` integer labels of the retrieved items, nearest first.
        query_labels: ``(Q,)`` integer labels of the queries.
        k: from 1 to n.

    Raises:
        ValueError: shapes that do not go together, labels that are no integers, or k outside 1..n.

    Example:
        >>> precision_at_k(torch.tensor([[1, 0, 1, 0]]), torch.tensor([1]), k=3)
        tensor([0.6667], dtype=torch.float64)
    """
    relevant = _relevance(ranked_labels, query_labels)
    return relevant[:, : _check_k(k, relevant)].double().mean(dim=1)


def recall_at_k(ranked_labels: Tensor, query_labels: Tensor, k: int) -> Tensor:
    """Whether any of the k nearest items is relevant, ``(Q,)`` of 0 and 1.

    Source: Song et al. 2016 (the Recall@K of metric learning). Derived in chapter 1.

    It is not the share of the relevant items that are found. The arguments are those of
    :func:`precision_at_k`.

    Raises:
        ValueError: as :func:`precision_at_k`.

    Example:
        >>> recall_at_k(torch.tensor([[0, 0, 1], [0, 0, 0]]), torch.tensor([1, 1]), k=3)
        tensor([1., 0.], dtype=torch.float64)
    """
    relevant = _relevance(ranked_labels, query_labels)
    return relevant[:, : _check_k(k, relevant)].any(dim=1).double()


class _Ranking(NamedTuple):
    relevant: Tensor  # (Q, n) of 0 and 1
    precision: Tensor  # (Q, n), precision at each rank
    n_relevant: Tensor  # (Q,), relevant items in the database
    k: int


def _gain(ranking: _Ranking, depth: int | Tensor) -> Tensor:
    """The sum, over the relevant items among the first ``depth``, of the precision at their ranks."""
    ranks = torch.arange(1, ranking.relevant.shape[1] + 1, device=ranking.relevant.device)
    within = ranks <= (depth.unsqueeze(1) if isinstance(depth, Tensor) else depth)
    return (ranking.precision * ranking.relevant * within).sum(dim=1)


def _full(ranking: _Ranking) -> Tensor:
    return _gain(ranking, ranking.relevant.shape[1]) / ranking.n_relevant


def _at_r(ranking: _Ranking) -> Tensor:
    return _gain(ranking, ranking.n_relevant) / ranking.n_relevant


def _at_k(ranking: _Ranking) -> Tensor:
    return _gain(ranking, ranking.k) / ranking.n_relevant.clamp(max=ranking.k)


def _over_hits(ranking: _Ranking) -> Tensor:
    return _gain(ranking, ranking.k) / ranking.relevant[:, : ranking.k].sum(dim=1).clamp(min=1)


def _over_ranks(ranking: _Ranking) -> Tensor:
    return ranking.precision[:, : ranking.k].mean(dim=1)


def _plain_precision(ranking: _Ranking) -> Tensor:
    return ranking.precision[:, ranking.k - 1]


CONVENTIONS: dict[str, Callable[[_Ranking], Tensor]] = {
    "full": _full,
    "R": _at_r,
    "k": _at_k,
    "hits": _over_hits,
    "ranks": _over_ranks,
    "precision": _plain_precision,
}
"""The six conventions of :func:`average_precision` by name. Derived in chapter 1."""


def average_precision(
    ranked_labels: Tensor,
    query_labels: Tensor,
    convention: str = "R",
    k: int | None = None,
    n_relevant: Tensor | None = None,
) -> Tensor:
    r"""Average precision ``(Q,)`` in [0, 1], by one of six conventions of the papers.

    Source: Manning et al. 2008, section 8.4 (``"full"``); Musgrave et al. 2020 (``"R"``); readings of
    [geometric] Table 1, which has no formula. Derived in chapters 1 and 10.

    With :math:`P_i` the precision at rank i, :math:`r_i` one where the i-th item is relevant, and R the
    number of relevant items in the database:

    - ``"full"``: :math:`\frac1R \sum_{i \le n} P_i r_i`, information retrieval over the whole ranking;
    - ``"R"``: :math:`\frac1R \sum_{i \le R} P_i r_i`, the MAP@R of metric learning;
    - ``"k"``: :math:`\frac1{\min(k, R)} \sum_{i \le k} P_i r_i`, the MAP@k of landmark and product search;
    - ``"hits"``: :math:`\sum_{i \le k} P_i r_i / \sum_{i \le k} r_i`, blind to R, 0 without a hit;
    - ``"ranks"``: :math:`\frac1k \sum_{i \le k} P_i`, precision averaged over the ranks;
    - ``"precision"``: :math:`P_k`, precision at k under the name of average precision.

    [geometric] Table 1 gives "MAP" at Top-1, Top-5 and Top-10. The last four are readings of it; all four
    agree at k = 1.

    Args:
        ranked_labels: ``(Q, n)`` integer labels of the retrieved items, nearest first.
        query_labels: ``(Q,)`` integer labels of the queries.
        convention: a name from the list, :data:`CONVENTIONS`.
        k: from 1 to n, for the last four conventions.
        n_relevant: ``(Q,)`` R of each query. By default the relevant items in its ranking, which is right
            only if the ranking holds the whole database. A query's class without the query itself has R = n -
            1: counting the query in gives 0.5 for a perfect retrieval of a class of two.

    Raises:
        ValueError: an unknown convention, a missing k, a query without relevant items, fewer of them than the
            ranking shows, a ranking shorter than R under ``"R"``, or what :func:`precision_at_k` refuses.

    Example:
        >>> ranked, query = torch.tensor([[1, 0, 1, 0]]), torch.tensor([1])
        >>> [round(float(average_precision(ranked, query, c, k=3)), 3) for c in CONVENTIONS]
        [0.833, 0.5, 0.833, 0.833, 0.722, 0.667]
    """
    check_choice(convention, "convention", CONVENTIONS)
    relevant = _relevance(ranked_labels, query_labels)
    by_k = convention not in ("full", "R")
    if by_k and k is None:
        raise ValueError(f'convention "{convention}" needs k, the number of nearest items to look at')
    depth = _check_k(k, relevant) if by_k and k is not None else relevant.shape[1]
    hits = relevant.double()
    ranks = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    counts = relevant.sum(dim=1) if n_relevant is None else _check_n_relevant(n_relevant, relevant)
    if convention in ("full", "R", "k"):
        _check_reach(counts, relevant, convention)
    # P_i of every rank: all conventions are weighted sums of it.
    return CONVENTIONS[convention](_Ranking(hits, hits.cumsum(dim=1) / ranks, counts, depth))


def mean_average_precision(
    ranked_labels: Tensor,
    query_labels: Tensor,
    convention: str = "R",
    k: int | None = None,
    n_relevant: Tensor | None = None,
) -> float:
    """Mean of :func:`average_precision` over the queries, from labels ``(Q, n)`` and ``(Q,)``.

    Source: Manning et al. 2008, section 8.4. Derived in chapter 1.

    :func:`average_precision` documents the arguments and the conventions.

    Raises:
        ValueError: as :func:`average_precision`.

    Example:
        >>> mean_average_precision(torch.tensor([[1, 0], [0, 1]]), torch.tensor([1, 1]), convention="full")
        0.75
    """
    return float(average_precision(ranked_labels, query_labels, convention, k, n_relevant).mean())


def _relevance(ranked_labels: Tensor, query_labels: Tensor) -> Tensor:
    """Whether the label of each item is that of its query, ``(Q, n)``."""
    ranked = as_whole(ranked_labels, "ranked_labels", "a tensor of integer labels")
    asked = as_whole(query_labels, "query_labels", "a tensor of integer labels")
    check_shape(ranked, "ranked_labels", ("queries", "items"))
    check_shape(asked, "query_labels", (len(ranked),))
    return ranked == asked.to(ranked.device).unsqueeze(1)


def _check_k(k: int, relevant: Tensor) -> int:
    return check_count(k, "k", at_most=relevant.shape[1])


def _check_n_relevant(n_relevant: Tensor, relevant: Tensor) -> Tensor:
    wanted = "whole numbers, the relevant items of each query"
    counts = as_whole(n_relevant, "n_relevant", wanted, truth_values=False).to(relevant.device)
    check_shape(counts, "n_relevant", (len(relevant),))
    short = counts < relevant.sum(dim=1)
    if short.any():
        query = int(short.nonzero()[0])
        raise ValueError(
            f"n_relevant of query {query} is {int(counts[query])}, but its ranking shows "
            f"{int(relevant[query].sum())} relevant items; leave duplicates and the query itself out of it"
        )
    return counts


def _check_reach(counts: Tensor, relevant: Tensor, convention: str) -> None:
    empty = counts == 0
    if empty.any():
        raise ValueError(
            f"query {int(empty.nonzero()[0])} has no relevant item, so its average precision is undefined; "
            "leave it out, or give n_relevant if the ranking is cut"
        )
    if convention == "R" and int(counts.max()) > relevant.shape[1]:
        query = int(counts.argmax())
        raise ValueError(
            f"query {query} has {int(counts[query])} relevant items, but the ranking stops at "
            f'{relevant.shape[1]}; rank at least that many, or use convention="k"'
        )
