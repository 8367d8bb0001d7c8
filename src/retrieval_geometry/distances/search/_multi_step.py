r"""Multi-step search: the k nearest images without all distances (Seidl and Kriegel 1998).

For each query::

    1   lower <- a lower bound of the distance to every image            one product of matrices
    2   order <- the images, sorted by their lower bounds
    3   nearest <- the k nearest of the first images in this order       a factorisation for each
    4   lower <- sharper bounds of the images within reach; order <- sorted by them
    5   while the next image in the order is within reach:
    6       nearest <- the k nearest of nearest and the next images, twice as many as before
    7   return nearest

An image is within reach while its bound does not exceed the k-th distance in ``nearest``. What line 5 leaves
out cannot be among the k nearest, so that the result is that of the full sort. Bounds are rooted and rounded
to the dtype of the result as the distances are: neither decreases, and a bound above the k-th distance still
belongs to an image whose distance is above it.

All queries of a block take each line together: an image is prepared once a round, for every query that asks
for it. Not every distance has a sharper bound (line 4), dearer than a product and cheaper than a distance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from retrieval_geometry.distances._blocks import Comparison, blocks, join, progress, take
from retrieval_geometry.distances.search._bounds import Bound, Bounds
from retrieval_geometry.image_models import Gaussian

FIRST_BATCH = 16
"""Images that a query asks for at line 3; twice as many each time that it comes to line 6."""


class _Found(NamedTuple):
    distances: Tensor
    indices: Tensor


class Ranking(_Found):
    """What :func:`rank` returns: the pair ``(distances, indices)``, both ``(P, k)``, nearest first.

    ``evaluated`` ``(P,)`` says for how many images of the database each query needed the distance itself.
    """

    evaluated: Tensor


def new_ranking(distances: Tensor, indices: Tensor, evaluated: Tensor) -> Ranking:
    """The pair with its attribute."""
    ranking = Ranking(distances, indices)
    ranking.evaluated = evaluated
    return ranking


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


def few_images(k: int) -> int:
    """So few images that bounds cost more than the half of the distances that they could spare."""
    return 2 * max(k, FIRST_BATCH)


def search(
    queries: Gaussian,
    images: Gaussian,
    k: int,
    method: Pruned,
    lower_bounds: Callable[[Gaussian, int], Bounds],
) -> Ranking:
    """The k nearest images of every query.

    Args:
        queries: P images.
        images: Q images, at least k.
        k: neighbours wanted.
        method: how the distance is ranked.
        lower_bounds: called with some queries and the index of the first of them.
    """
    comparison = method.comparison(queries, images)
    distances = torch.empty(len(queries), k, dtype=queries.dtype, device=queries.device)
    indices = torch.empty(len(queries), k, dtype=torch.long, device=queries.device)
    evaluated = torch.zeros(len(queries), dtype=torch.long)
    with progress(len(queries) * len(images)) as bar:
        # What is prepared of a query is a matrix in float64; what it remembers, two bounds and an order.
        for cut in blocks(len(queries), 10 * images.dim**2 + 24 * len(images)):
            bounds = lower_bounds(queries[cut], cut.start)  # line 1
            found = _Block(queries[cut], images, k, method, comparison, bounds).run(bar)
            for i, query in enumerate(found, cut.start):
                distances[i], indices[i], evaluated[i] = query.distances, query.indices, query.n_compared
    return new_ranking(distances, indices, evaluated)


class _Query:
    """One query: its bounds, the order in which it asks for images, and the k nearest so far."""

    def __init__(self, lower: Tensor, k: int, final: Callable[[Tensor], Tensor]):
        self.lower, self.k, self.final = lower, k, final
        self.order = lower.argsort()  # line 2
        self.distances, self.indices = final(lower[:0]), self.order[:0]
        self.n_compared, self.batch = 0, max(k, FIRST_BATCH)

    def within_reach(self) -> Tensor:
        """All images that cannot be ruled out, in the order of their bounds."""
        left = self.order[self.n_compared :]
        # Nothing exceeds a k-th distance that is no number: it sorts last, with all others of its kind.
        return left[~(self.final(self.lower[left]) > self.distances[-1])] if self.n_compared else left

    def next_images(self) -> Tensor:
        """The next images within reach; none when the k nearest are known."""
        return self.within_reach()[: self.batch]

    def add(self, chosen: Tensor, distances: Tensor) -> None:
        """Keep the k nearest of those so far and of the next images; equal ones by their position."""
        self.n_compared, self.batch = self.n_compared + len(chosen), 2 * self.batch
        indices, by_position = torch.cat([self.indices, chosen]).sort()
        values, by_distance = torch.cat([self.distances, distances])[by_position].sort(stable=True)
        self.distances, self.indices = values[: self.k], indices[by_distance][: self.k]

    def sharpen(self, chosen: Tensor, lower: Tensor) -> None:
        """Take better bounds of all images within reach, and sort what is left of the order by them."""
        self.lower = self.lower.clone()
        self.lower[chosen] = torch.maximum(self.lower[chosen], lower)
        left = self.order[self.n_compared :]
        self.order = torch.cat([self.order[: self.n_compared], left[self.lower[left].argsort()]])


class _Block:
    """Some queries, prepared once, on their way through the lines together."""

    def __init__(
        self,
        queries: Gaussian,
        images: Gaussian,
        k: int,
        method: Pruned,
        comparison: Comparison,
        bounds: Bounds,
    ) -> None:
        self.images, self.method, self.comparison, self.bounds = images, method, comparison, bounds
        self.dtype = queries.dtype
        pieces = blocks(len(queries), comparison.bytes_per_image)
        prepared = (comparison.prepare(queries[piece], "p", piece.start) for piece in pieces)
        self.prepared = join(prepared, len(queries))
        self.queries = [_Query(lower, k, self._final) for lower in bounds.lower]

    def run(self, bar: tqdm) -> list[_Query]:
        """Lines 3 to 6."""
        wanted = {i: query.next_images() for i, query in enumerate(self.queries)}
        self._compare(wanted, bar)  # line 3
        if self.method.sharper is not None:
            self._sharpen()  # line 4
        while wanted := {i: new for i in wanted if len(new := self.queries[i].next_images())}:  # line 5
            self._compare(wanted, bar)  # line 6
        bar.update(sum(len(query.lower) - query.n_compared for query in self.queries))
        return self.queries

    def _final(self, values: Tensor) -> Tensor:
        return self.method.finish(values).to(self.dtype)

    def _compare(self, wanted: dict[int, Tensor], bar: tqdm) -> None:
        def distances(i: int, chosen: Tensor, query: Any, images: Any) -> Tensor:
            return self._final(self.comparison.compare(query, images)[0])

        for i, found in self._of_each(wanted, distances, self.dtype).items():
            self.queries[i].add(wanted[i], found)
            bar.update(len(found))

    def _sharpen(self) -> None:
        def sharper(i: int, chosen: Tensor, query: Any, images: Any) -> Tensor:
            assert self.method.sharper is not None
            leading, trailing = self.bounds.leading_rows[i], self.bounds.trailing_fidelity[i, chosen]
            return self.method.sharper(query, images, leading, trailing)

        wanted = {i: query.within_reach() for i, query in enumerate(self.queries)}
        for i, lower in self._of_each(wanted, sharper, self.bounds.lower.dtype).items():
            self.queries[i].sharpen(wanted[i], lower)

    def _of_each(
        self,
        wanted: dict[int, Tensor],
        function: Callable[[int, Tensor, Any, Any], Tensor],
        dtype: torch.dtype,
    ) -> dict[int, Tensor]:
        """A function of each query and the images that it asks for; every image is prepared once.

        It is called with the query's index, the images' indices, and what was prepared of both.
        """
        found = {i: torch.empty(len(c), dtype=dtype, device=c.device) for i, c in wanted.items()}
        asked = torch.cat(list(wanted.values())).unique()
        for cut in blocks(len(asked), self.comparison.bytes_per_image):
            block = asked[cut]
            images = self.comparison.prepare(self.images[block], "q", 0)
            for i, chosen in wanted.items():
                here = ((chosen >= block[0]) & (chosen <= block[-1])).nonzero().flatten()
                if len(here):
                    some = take(images, torch.searchsorted(block, chosen[here]))
                    found[i][here] = function(i, chosen[here], take(self.prepared, slice(i, i + 1)), some)
        return found
