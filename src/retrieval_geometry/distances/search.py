r"""Exact ranking without all pairs: lower bounds first, the distance itself only where they leave doubt.

A bound costs a matrix product for all pairs, a distance a factorisation for each. The images of the database
are taken in the order of their bounds until the next bound exceeds the k-th distance found so far: what is
left cannot be among the k nearest. The result is that of the full sort.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count
from retrieval_geometry.distances._bounds import (
    affine_invariant_lower_bound,
    wasserstein2_squared_lower_bound,
)
from retrieval_geometry.distances.registry import DISTANCES
from retrieval_geometry.image_models import Gaussian

FIRST_BATCH = 16
"""Images of the database that are compared at once in the beginning; the batches grow from there."""


class _Found(NamedTuple):
    distances: Tensor
    indices: Tensor


class Ranking(_Found):
    """What :func:`rank` returns: the pair ``(distances, indices)``, both ``(P, k)``, nearest first.

    ``evaluated`` ``(P,)`` says for how many images of the database each query needed the distance itself.
    """

    evaluated: Tensor


@dataclass(frozen=True)
class _Pruned:
    """A lower bound for all pairs and what turns a distance into the bound's scale."""

    lower_bound: Callable[[Gaussian, Gaussian], Tensor]
    to_bound: Callable[[Tensor], Tensor] = lambda distances: distances


PRUNED = {
    "wasserstein2": _Pruned(wasserstein2_squared_lower_bound, torch.square),
    "wasserstein2_squared": _Pruned(wasserstein2_squared_lower_bound),
    "affine_invariant": _Pruned(affine_invariant_lower_bound),
}
"""Distances that are ranked by bounds; every other one of the registry is sorted in full."""


@torch.no_grad()
def rank(queries: Any, database: Any, distance: str = "wasserstein2", k: int = 10) -> Ranking:
    """The k nearest images of the database for every query, exactly as the full sort has them.

    Ties are broken by the position in the database. For the 2-Wasserstein and the affine-invariant distance
    most pairs are never compared: proven lower bounds rule them out. The others are sorted in full.

    Args:
        queries: P images, as the distance wants them.
        database: Q images.
        distance: a key of :data:`~retrieval_geometry.distances.DISTANCES`.
        k: neighbours wanted, at most Q.

    Returns:
        ``(distances, indices)``, each ``(P, k)``, with the attribute ``evaluated`` ``(P,)``.

    Raises:
        ValueError: an unknown distance, a k that is no count up to Q, or what the distance itself refuses.

    Example:
        >>> g = Gaussian(torch.tensor([[0.0], [5.0], [1.0]]), torch.ones(3, 1, 1))
        >>> distances, indices = rank(g[:1], g, k=2)
        >>> indices
        tensor([[0, 2]])
    """
    check_choice(distance, "distance", DISTANCES)
    check_count(k, "k", at_most=len(database))
    if distance in PRUNED and len(queries):
        return _rank_by_bounds(queries, database, distance, k)
    values = DISTANCES[distance](queries, database)
    found = values.sort(dim=1, stable=True)
    every = torch.full((len(values),), len(database))
    return _ranking(found.values[:, :k], found.indices[:, :k], every)


def _rank_by_bounds(queries: Gaussian, database: Gaussian, distance: str, k: int) -> Ranking:
    bounds = PRUNED[distance].lower_bound(queries, database)
    rows = [_nearest(queries[i : i + 1], database, distance, k, row) for i, row in enumerate(bounds)]
    distances, indices, evaluated = zip(*rows, strict=True)
    return _ranking(torch.stack(distances), torch.stack(indices), torch.tensor(evaluated))


def _nearest(
    query: Gaussian, database: Gaussian, distance: str, k: int, bounds: Tensor
) -> tuple[Tensor, Tensor, int]:
    """The k nearest of one query, in the order of the full sort, and how many distances that took."""
    order = bounds.argsort()
    found = torch.full((len(database),), torch.inf, dtype=query.dtype, device=bounds.device)
    start, batch = 0, max(k, FIRST_BATCH)
    while start < len(order):
        chosen = order[start : start + batch]
        if start:
            # Bounds ascend: the first that is out of reach rules out all that follow.
            chosen = chosen[bounds[chosen] <= _reach(found, distance, k)]
            if not len(chosen):
                break
        found[chosen] = DISTANCES[distance](query, database[chosen])[0]
        start, batch = start + len(chosen), 2 * batch
    values, indices = found.sort(stable=True)
    return values[:k], indices[:k], start


def _reach(found: Tensor, distance: str, k: int) -> Tensor:
    """The largest bound that still matters, on the safe side of the rounding of the k-th distance."""
    kth = PRUNED[distance].to_bound(found.kthvalue(k).values.double())
    return kth * (1 + 16 * torch.finfo(found.dtype).eps)


def _ranking(distances: Tensor, indices: Tensor, evaluated: Tensor) -> Ranking:
    ranking = Ranking(distances, indices)
    ranking.evaluated = evaluated
    return ranking
