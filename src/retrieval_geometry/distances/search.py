r"""Exact ranking without all pairs: lower bounds first, the distance itself only where they leave doubt.

A bound costs a matrix product for all pairs, a distance a factorisation for each. The images of the database
are taken in the order of their bounds until the next bound exceeds the k-th distance found so far: what is
left cannot be among the k nearest. The result is that of the full sort.

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
from retrieval_geometry.distances._blocks import Comparison, blocks, join, progress, take
from retrieval_geometry.distances._bounds import (
    AffineInvariantBound,
    Bound,
    WassersteinBound,
    passing_bounds,
)
from retrieval_geometry.distances._gaussians import check_gaussians, safe_sqrt
from retrieval_geometry.distances.registry import DISTANCES
from retrieval_geometry.distances.riemannian import affine_invariant_comparison
from retrieval_geometry.distances.wasserstein import wasserstein2_squared_comparison
from retrieval_geometry.image_models import Gaussian

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

    ``comparison`` computes the distance or something that ``finish`` turns into it; ``to_bound`` turns the
    distance into the scale of the bounds.
    """

    bound: type[Bound]
    comparison: Callable[[Gaussian, Gaussian], Comparison]
    finish: Callable[[Tensor], Tensor] = _same
    to_bound: Callable[[Tensor], Tensor] = _same


PRUNED = {
    "wasserstein2": Pruned(WassersteinBound, wasserstein2_squared_comparison, safe_sqrt, torch.square),
    "wasserstein2_squared": Pruned(WassersteinBound, wasserstein2_squared_comparison),
    "affine_invariant": Pruned(AffineInvariantBound, affine_invariant_comparison),
}
"""Distances that are ranked by bounds; every other one of the registry is sorted in full."""


@torch.no_grad()
def rank(queries: Any, database: Any, distance: str = "wasserstein2", k: int = 10) -> Ranking:
    """The k nearest images of the database for every query, exactly as the full sort has them.

    Ties are broken by the position in the database. For the 2-Wasserstein and the affine-invariant distance
    most pairs are never compared: proven lower bounds rule them out. The others are sorted in full. To rank
    against the same database again and again, make a :class:`~retrieval_geometry.distances.GalleryIndex`.

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
    if distance in PRUNED:
        check_gaussians(queries, database)
        queries, database = detached(queries), detached(database)
        bounds = passing_bounds(PRUNED[distance].bound.of(database), queries, database)
        return rank_by_bounds(queries, database, distance, k, bounds)
    values = DISTANCES[distance](queries, database)
    found = values.sort(dim=1, stable=True)
    every = torch.full((len(values),), len(database))
    return _ranking(found.values[:, :k], found.indices[:, :k], every)


def detached(g: Gaussian) -> Gaussian:
    """The same images without a gradient: those that carry one are compared in another way."""
    return Gaussian(g.mean.detach(), g.cov.detach(), None if g.factor is None else g.factor.detach())


def rank_by_bounds(queries: Gaussian, images: Gaussian, distance: str, k: int, bounds: Tensor) -> Ranking:
    """Rank images by a distance of :data:`PRUNED`, given lower bounds ``(P, Q)`` in its scale."""
    method = PRUNED[distance]
    comparison = method.comparison(queries, images)
    distances = torch.empty(len(queries), k, dtype=queries.dtype, device=queries.device)
    indices = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    evaluated = torch.zeros(len(queries), dtype=torch.long)
    with progress(bounds.numel()) as bar:
        # What is prepared of a query is a matrix in float64; what a query remembers, an order of the images.
        for cut in blocks(len(queries), 8 * images.dim**2 + 8 * len(images)):
            searches = [_Search(row, k, queries.dtype, method.to_bound) for row in bounds[cut]]
            _run(searches, _Distances(queries[cut], images, comparison, method.finish), bar)
            for i, search in enumerate(searches, cut.start):
                distances[i], indices[i], evaluated[i] = search.distances, search.indices, search.evaluated
    return _ranking(distances, indices, evaluated)


def _run(searches: list["_Search"], distances: "_Distances", bar: tqdm) -> None:
    """Let searches ask and answer them, in rounds, until all are done."""
    running = list(range(len(searches)))
    while running:
        asked = {i: searches[i].ask() for i in running}
        for i, found in distances(asked).items():
            searches[i].answer(asked[i], found)
            bar.update(len(found))
        running = [i for i in running if len(asked[i])]
        bar.update(sum(len(searches[i].bounds) - searches[i].evaluated for i in asked.keys() - running))


class _Search:
    """One query: the order in which it asks for images, and the k nearest so far."""

    def __init__(self, bounds: Tensor, k: int, dtype: torch.dtype, to_bound: Callable[[Tensor], Tensor]):
        self.k, self.to_bound, self.bounds = k, to_bound, bounds
        self.order = bounds.argsort()
        self.distances = torch.empty(0, dtype=dtype, device=bounds.device)
        self.indices = self.order[:0]
        self.evaluated, self.batch = 0, max(k, FIRST_BATCH)

    def ask(self) -> Tensor:
        """The next images of which the distance is wanted; none when the k nearest are known."""
        chosen = self.order[self.evaluated : self.evaluated + self.batch]
        if self.evaluated:
            # Bounds ascend: the first that is out of reach rules out all that follow.
            chosen = chosen[self.bounds[chosen] <= self._reach()]
        if not len(chosen):
            self.order = self.order[:0].clone()  # the memory of the whole order is not needed any more
        return chosen

    def answer(self, chosen: Tensor, distances: Tensor) -> None:
        """Take in the distances of the images asked for."""
        self.evaluated, self.batch = self.evaluated + len(chosen), 2 * self.batch
        indices, by_position = torch.cat([self.indices, chosen]).sort()
        values, by_distance = torch.cat([self.distances, distances])[by_position].sort(stable=True)
        self.distances, self.indices = values[: self.k], indices[by_distance][: self.k]

    def _reach(self) -> Tensor:
        """The largest bound that still matters, on the safe side of the rounding of the k-th distance."""
        kth = self.to_bound(self.distances[-1].double()).nan_to_num(nan=torch.inf, posinf=torch.inf)
        return kth * (1 + 16 * torch.finfo(self.distances.dtype).eps)


class _Distances:
    """Distances between some queries, prepared once, and the images that they ask for."""

    def __init__(
        self,
        queries: Gaussian,
        images: Gaussian,
        comparison: Comparison,
        finish: Callable[[Tensor], Tensor],
    ) -> None:
        self.images, self.comparison, self.finish = images, comparison, finish
        pieces = blocks(len(queries), comparison.bytes_per_image)
        prepared = (comparison.prepare(queries[piece], "p", piece.start) for piece in pieces)
        self.left = join(prepared, len(queries))

    def __call__(self, asked: dict[int, Tensor]) -> dict[int, Tensor]:
        """The distances of each query of the images that it asks for; every image is prepared once."""
        found = {i: self.images.mean.new_empty(len(chosen)) for i, chosen in asked.items()}
        wanted = torch.cat(list(asked.values())).unique()
        for cut in blocks(len(wanted), self.comparison.bytes_per_image):
            block = wanted[cut]
            right = self.comparison.prepare(self.images[block], "q", 0)
            for i, chosen in asked.items():
                here = ((chosen >= block[0]) & (chosen <= block[-1])).nonzero().flatten()
                if len(here):
                    some = take(right, torch.searchsorted(block, chosen[here]))
                    found[i][here] = self._compare(i, some)
        return found

    def _compare(self, i: int, images: Any) -> Tensor:
        distances = self.comparison.compare(take(self.left, slice(i, i + 1)), images)[0]
        return self.finish(distances.to(self.images.dtype))


def _ranking(distances: Tensor, indices: Tensor, evaluated: Tensor) -> Ranking:
    ranking = Ranking(distances, indices)
    ranking.evaluated = evaluated
    return ranking
