"""Exact ranking by a distance: by :mod:`._multi_step` where lower bounds are known, else by the full sort."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import check_choice, check_count
from retrieval_geometry.distances._gaussians import check_gaussians, safe_sqrt
from retrieval_geometry.distances.registry import DISTANCES
from retrieval_geometry.distances.riemannian import affine_invariant_comparison
from retrieval_geometry.distances.search._affine_invariant import AffineInvariantBound
from retrieval_geometry.distances.search._bounds import Bounds, streamed_bounds
from retrieval_geometry.distances.search._multi_step import Pruned, Ranking, few_images, new_ranking, search
from retrieval_geometry.distances.search._wasserstein import WassersteinBound, sharper_wasserstein
from retrieval_geometry.distances.wasserstein import wasserstein2_squared_comparison
from retrieval_geometry.image_models import Gaussian, GaussianMixture

SMALL = 1e-25
"""Traces of which rounding alone, 1e-12 of them, may be below the smallest number of float32."""

PRUNED = {
    "wasserstein2": Pruned(WassersteinBound, wasserstein2_squared_comparison, sharper_wasserstein, safe_sqrt),
    "wasserstein2_squared": Pruned(WassersteinBound, wasserstein2_squared_comparison, sharper_wasserstein),
    "affine_invariant": Pruned(AffineInvariantBound, affine_invariant_comparison),
}
"""Distances that are ranked by bounds; every other one of the registry is sorted in full."""


@torch.no_grad()
def rank(queries: Any, database: Any, distance: str = "wasserstein2", k: int = 10) -> Ranking:
    """The k nearest images of the database for every query, exactly as the full sort has them.

    Ties are broken by the position in the database. For the 2-Wasserstein and the affine-invariant distance
    most pairs are never compared: proven lower bounds rule them out. The others, and databases of few images,
    are sorted in full. To rank against the same database again and again, make a
    :class:`~retrieval_geometry.distances.GalleryIndex`.

    The result is that of the full sort at every scale that the distance takes. Covariances rule pairs out
    where the sum of the traces is above 1e-138 and each trace below 1e300; for the affine-invariant distance
    where the variances are within a factor of 1e130 of the average, and the covariances not so
    ill-conditioned that rounding decides. Elsewhere they are compared.

    Args:
        queries: P images, as the distance wants them.
        database: Q images.
        distance: a key of :data:`~retrieval_geometry.distances.DISTANCES`.
        k: neighbours wanted, at most Q.

    Returns:
        ``(distances, indices)``, each ``(P, k)``, with the attribute ``evaluated`` ``(P,)``.

    Raises:
        ValueError: an unknown distance, a database of nothing the distances know, a k that is no count up to
            Q, or what the distance itself refuses.

    Example:
        >>> g = Gaussian(torch.tensor([[0.0], [5.0], [1.0]]), torch.ones(3, 1, 1))
        >>> distances, indices = rank(g[:1], g, k=2)
        >>> indices
        tensor([[0, 2]])
    """
    check_choice(distance, "distance", DISTANCES)
    _check_database(database)
    check_count(k, "k", at_most=len(database))
    if distance in PRUNED:
        check_gaussians(queries, database)
        queries, database = detached(queries), detached(database)
    if distance in PRUNED and len(database) > few_images(k):
        bound = PRUNED[distance].bound.build(database)

        def lower_bounds(some: Gaussian, first: int) -> Bounds:
            return streamed_bounds(bound, some, database, first)

        return rank_by_bounds(queries, database, distance, k, lower_bounds)
    values = DISTANCES[distance](queries, database)
    found = values.sort(dim=1, stable=True)
    every = torch.full((len(values),), len(database))
    return new_ranking(found.values[:, :k], found.indices[:, :k], every)


def _check_database(database: object) -> None:
    """Refuse what is no batch of images, and has perhaps no length."""
    if not isinstance(database, Gaussian | GaussianMixture | Tensor):
        raise ValueError(
            f"database must hold images as the distance wants them, got {type(database).__name__}"
        )


def detached(g: Gaussian) -> Gaussian:
    """The same images without a gradient: those that carry one are compared in another way."""
    return Gaussian(g.mean.detach(), g.cov.detach(), None if g.factor is None else g.factor.detach())


def rank_by_bounds(
    queries: Gaussian,
    images: Gaussian,
    distance: str,
    k: int,
    lower_bounds: Callable[[Gaussian, int], Bounds],
) -> Ranking:
    """Rank images by a distance of :data:`PRUNED`; see :func:`._multi_step.search`."""
    ranking = search(queries, images, k, PRUNED[distance], lower_bounds)
    _refuse_what_is_lost(queries, images, distance, ranking)
    return ranking


def _refuse_what_is_lost(queries: Gaussian, images: Gaussian, distance: str, found: Ranking) -> None:
    """Let the distance itself look at values that the dtype may not hold: it refuses false ties.

    Squares of float32 alone may be lost, and small ones only between images that are small themselves.
    """
    if queries.dtype != torch.float32:
        return
    size, other = (g.cov.diagonal(dim1=-2, dim2=-1).sum(dim=1) for g in (queries, images))
    small = size.unsqueeze(1) + other[found.indices] < SMALL
    values = found.distances
    lost = ~values.isfinite() | (small & (values < torch.finfo(values.dtype).tiny))
    for i, column in lost.nonzero().tolist():
        chosen = slice(int(found.indices[i, column]), int(found.indices[i, column]) + 1)
        DISTANCES[distance](queries[i : i + 1], images[chosen])
