r"""Exact ranking without all pairs: lower bounds first, the distance itself only where they leave doubt.

A bound costs a matrix product for all pairs, a distance a factorisation for each. The images of the database
are taken in the order of their bounds until the next bound exceeds the k-th distance found so far: what is
left cannot be among the k nearest. The result is that of the full sort. Bounds are compared after the same
rounding to the dtype of the result, and the same root, as the distances: both grow with what they are given,
so that a bound which exceeds the k-th distance then belongs to an image whose distance does.

Between the two there may be a sharper bound, dearer than a product and cheaper than a distance. It is
computed for those images that the first bound leaves within reach of the first distances.

All queries go on together, in rounds: an image of the database is prepared once a round, for every query that
asks for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry._check import check_choice, check_count
from retrieval_geometry.distances._affine_invariant_bound import AffineInvariantBound
from retrieval_geometry.distances._blocks import Comparison, blocks, join, progress, take
from retrieval_geometry.distances._bounds import Bound, Bounds, passing_bounds
from retrieval_geometry.distances._gaussians import check_gaussians, safe_sqrt
from retrieval_geometry.distances._wasserstein_bound import WassersteinBound, sharper_wasserstein
from retrieval_geometry.distances.registry import DISTANCES
from retrieval_geometry.distances.riemannian import affine_invariant_comparison
from retrieval_geometry.distances.wasserstein import wasserstein2_squared_comparison
from retrieval_geometry.image_models import Gaussian, GaussianMixture

SMALL = 1e-25
"""Traces of which rounding alone, 1e-12 of them, may be below the smallest number of float32."""

FIRST_BATCH = 16
"""Images of the database that a query asks for in the first round; twice as many in each that follows."""


class _Found(NamedTuple):
    distances: Tensor
    indices: Tensor


class Ranking(_Found):
    """What :func:`rank` returns: the pair ``(distances, indices)``, both ``(P, k)``, nearest first.

    ``evaluated`` ``(P,)`` says for how many images of the database each query needed the distance itself.
    """

    evaluated: Tensor


def _same(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class Pruned:
    """How a distance is ranked by bounds.

    ``comparison`` computes in float64 what ``bound`` bounds and ``finish`` turns into the distance, which is
    then rounded to the dtype of the images; ``finish`` must not decrease. ``sharper`` computes better bounds
    of one query, from what was prepared of the images and from :class:`Bounds`.
    """

    bound: type[Bound]
    comparison: Callable[[Gaussian, Gaussian], Comparison]
    sharper: Callable[[Any, Any, Tensor, Tensor], Tensor] | None = None
    finish: Callable[[Tensor], Tensor] = _same


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
        bound = PRUNED[distance].bound.of(database)

        def bounds(some: Gaussian, first: int) -> Bounds:
            return passing_bounds(bound, some, database, first)

        return rank_by_bounds(queries, database, distance, k, bounds)
    values = DISTANCES[distance](queries, database)
    found = values.sort(dim=1, stable=True)
    every = torch.full((len(values),), len(database))
    return _ranking(found.values[:, :k], found.indices[:, :k], every)


def _check_database(database: object) -> None:
    """Refuse what is no batch of images, and has perhaps no length."""
    if not isinstance(database, Gaussian | GaussianMixture | Tensor):
        raise ValueError(
            f"database must hold images as the distance wants them, got {type(database).__name__}"
        )


def few_images(k: int) -> int:
    """So few images that bounds cost more than the half of the distances that they could spare."""
    return 2 * max(k, FIRST_BATCH)


def detached(g: Gaussian) -> Gaussian:
    """The same images without a gradient: those that carry one are compared in another way."""
    return Gaussian(g.mean.detach(), g.cov.detach(), None if g.factor is None else g.factor.detach())


def rank_by_bounds(
    queries: Gaussian, images: Gaussian, distance: str, k: int, bounds: Callable[[Gaussian, int], Bounds]
) -> Ranking:
    """Rank images by a distance of :data:`PRUNED`.

    Args:
        queries: P images.
        images: Q images.
        distance: in whose scale the bounds are.
        k: neighbours wanted.
        bounds: called with some queries and the index of the first of them.
    """
    method = PRUNED[distance]

    def final(values: Tensor) -> Tensor:
        return method.finish(values).to(queries.dtype)

    comparison = method.comparison(queries, images)
    distances = torch.empty(len(queries), k, dtype=queries.dtype, device=queries.device)
    indices = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    evaluated = torch.zeros(len(queries), dtype=torch.long)
    with progress(len(queries) * len(images)) as bar:
        # What is prepared of a query is a matrix in float64; what it remembers, two bounds and an order.
        for cut in blocks(len(queries), 10 * images.dim**2 + 24 * len(images)):
            found = bounds(queries[cut], cut.start)
            searches = [_Search(row, k, final) for row in found.lower]
            pairs = _Pairs(queries[cut], images, comparison)
            _run(searches, pairs, final, method.sharper, found, bar)
            for i, search in enumerate(searches, cut.start):
                distances[i], indices[i], evaluated[i] = search.distances, search.indices, search.evaluated
    _refuse_what_is_lost(queries, images, distance, _Found(distances, indices))
    return _ranking(distances, indices, evaluated)


def _refuse_what_is_lost(queries: Gaussian, images: Gaussian, distance: str, found: _Found) -> None:
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


def _run(
    searches: list["_Search"],
    pairs: "_Pairs",
    final: Callable[[Tensor], Tensor],
    sharper: Callable[[Any, Any, Tensor, Tensor], Tensor] | None,
    bounds: Bounds,
    bar: tqdm,
) -> None:
    """Let searches ask and answer them, in rounds, until all are done."""

    def distances(i: int, chosen: Tensor, query: Any, images: Any) -> Tensor:
        return final(pairs.comparison.compare(query, images)[0])

    def sharpened(i: int, chosen: Tensor, query: Any, images: Any) -> Tensor:
        assert sharper is not None
        return sharper(query, images, bounds.leading[i], bounds.rest[i, chosen])

    asked = {i: search.ask() for i, search in enumerate(searches)}
    n_rounds = 0
    while asked:
        for i, found in pairs.each(asked, distances, searches[0].distances.dtype).items():
            searches[i].answer(asked[i], found)
            bar.update(len(found))
        if not n_rounds and sharper is not None:
            within = {i: search.within_reach() for i, search in enumerate(searches)}
            for i, values in pairs.each(within, sharpened, bounds.lower.dtype).items():
                searches[i].sharpen(within[i], values)
        n_rounds += 1
        asked = {i: chosen for i in asked if len(chosen := searches[i].ask())}
    bar.update(sum(len(search.bounds) - search.evaluated for search in searches))


class _Search:
    """One query: the order in which it asks for images, and the k nearest so far."""

    def __init__(self, bounds: Tensor, k: int, final: Callable[[Tensor], Tensor]):
        self.k, self.final, self.bounds = k, final, bounds
        self.order = bounds.argsort()
        self.distances, self.indices = final(bounds[:0]), self.order[:0]
        self.evaluated, self.batch = 0, max(k, FIRST_BATCH)

    def within_reach(self) -> Tensor:
        """All images that cannot be ruled out, in the order of their bounds."""
        left = self.order[self.evaluated :]
        # Nothing exceeds a k-th distance that is no number: it sorts last, with all others of its kind.
        return left[~(self.final(self.bounds[left]) > self.distances[-1])] if self.evaluated else left

    def ask(self) -> Tensor:
        """The next images of which the distance is wanted; none when the k nearest are known."""
        return self.within_reach()[: self.batch]

    def sharpen(self, chosen: Tensor, bounds: Tensor) -> None:
        """Take in better bounds of all images within reach, and order what is left by them."""
        self.bounds = self.bounds.clone()
        self.bounds[chosen] = torch.maximum(self.bounds[chosen], bounds)
        left = self.order[self.evaluated :]
        self.order = torch.cat([self.order[: self.evaluated], left[self.bounds[left].argsort()]])

    def answer(self, chosen: Tensor, distances: Tensor) -> None:
        """Take in the distances of the images asked for."""
        self.evaluated, self.batch = self.evaluated + len(chosen), 2 * self.batch
        indices, by_position = torch.cat([self.indices, chosen]).sort()
        values, by_distance = torch.cat([self.distances, distances])[by_position].sort(stable=True)
        self.distances, self.indices = values[: self.k], indices[by_distance][: self.k]


class _Pairs:
    """Pairs of some queries, prepared once, and the images that they ask for."""

    def __init__(self, queries: Gaussian, images: Gaussian, comparison: Comparison) -> None:
        self.images, self.comparison = images, comparison
        pieces = blocks(len(queries), comparison.bytes_per_image)
        prepared = (comparison.prepare(queries[piece], "p", piece.start) for piece in pieces)
        self.left = join(prepared, len(queries))

    def each(
        self,
        asked: dict[int, Tensor],
        function: Callable[[int, Tensor, Any, Any], Tensor],
        dtype: torch.dtype,
    ) -> dict[int, Tensor]:
        """A function of each query and the images that it asks for; every image is prepared once.

        It is called with the query's index, the images' indices, and what was prepared of both.
        """
        found = {
            i: torch.empty(len(chosen), dtype=dtype, device=chosen.device) for i, chosen in asked.items()
        }
        wanted = torch.cat(list(asked.values())).unique()
        for cut in blocks(len(wanted), self.comparison.bytes_per_image):
            block = wanted[cut]
            right = self.comparison.prepare(self.images[block], "q", 0)
            for i, chosen in asked.items():
                here = ((chosen >= block[0]) & (chosen <= block[-1])).nonzero().flatten()
                if len(here):
                    some = take(right, torch.searchsorted(block, chosen[here]))
                    found[i][here] = function(i, chosen[here], take(self.left, slice(i, i + 1)), some)
        return found


def _ranking(distances: Tensor, indices: Tensor, evaluated: Tensor) -> Ranking:
    ranking = Ranking(distances, indices)
    ranking.evaluated = evaluated
    return ranking
