"""Lower bounds of a distance, for all pairs at the price of matrix products.

Each is a theorem less a margin for rounding (:mod:`._rounding`), so that a bound is never above the distance
that is computed for the same pair. Where a bound overflows or is no number there is no bound: it is 0.

Bounds are computed in a common frame, which the database suggests. The theorems hold in any frame, so that
images may come and go while the frame stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs, blocks, join, take
from retrieval_geometry.distances.search._rounding import no_bound_if_not_finite
from retrieval_geometry.image_models import Gaussian

WORKING_BYTES = 2**21
"""Of one kind of matrix of the images that are prepared at a time: few enough to stay near a CPU's cache."""


class Bounds(NamedTuple):
    """Lower bounds of all pairs, and what makes those of a few pairs sharper."""

    lower: Tensor
    """``(P, Q)`` float64, finite and at least 0."""
    trailing_fidelity: Tensor
    """``(P, Q)`` float64, of the query's other rows: a bound that stays; empty where none is made sharper."""
    leading_rows: Tensor
    """``(P, r, D)`` float64, rows of the query that are compared anew; empty as well."""


class Bound(ABC):
    """A lower bound in a common frame: what it needs of queries and images, and how it compares them."""

    Frame: type[Any]
    """A named tuple of tensors, the frame; it makes a bound."""
    Stored: type[Any]
    """A named tuple of tensors, what an index stores of images: dear to compute, small."""
    bytes_per_image: int
    """Of all that is prepared of an image."""
    bytes_stored: int
    """Of what is stored of an image."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    @classmethod
    @abstractmethod
    def build(cls, images: Gaussian) -> "Bound":
        """The bound in the frame that a database suggests."""

    @abstractmethod
    def prepare_queries(self, g: Gaussian, start: int) -> Any:
        """Check some queries, the first of which has the index ``start``, and compute what they need."""

    @abstractmethod
    def prepare_images(self, g: Gaussian, start: int) -> Any:
        """Check and compute the same of images of the database; the attribute ``stored`` is worth storing."""

    @abstractmethod
    def restore(self, g: Gaussian, stored: Any) -> Any:
        """Return what :meth:`prepare_images` returned, from the images and ``stored``, by products alone."""

    @abstractmethod
    def lower_bounds(self, queries: Any, images: Any) -> Tensor:
        """Lower bounds ``(P, Q)``, float64; or ``(2, P, Q)``, with the trailing fidelities."""

    @abstractmethod
    def leading_rows(self, queries: Any) -> Tensor:
        """The rows ``(P, r, D)`` that make the bounds of some queries sharper; r = 0 where nothing does."""


def store(bound: Bound, images: Gaussian) -> Any:
    """What an index stores of a database.

    Raises:
        ValueError: an image is none that the distance takes; it is named.
    """
    cuts = blocks(len(images), bound.bytes_per_image)
    return join((bound.prepare_images(images[cut], cut.start).stored for cut in cuts), len(images))


def stored_bounds(bound: Bound, queries: Gaussian, images: Gaussian, stored: Any, first: int = 0) -> Bounds:
    """Lower bounds from what :func:`store` returned of the images.

    Args:
        bound: the bound.
        queries: P images, the first of which is image ``first`` of all queries.
        images: Q images.
        stored: what was stored of them.
        first: for messages.
    """

    def prepare(g: Gaussian, start: int) -> Any:
        return bound.restore(g, take(stored, slice(start, start + len(g))))

    return _bounds(bound, queries, images, prepare, first)


def streamed_bounds(bound: Bound, queries: Gaussian, images: Gaussian, first: int = 0) -> Bounds:
    """Lower bounds with nothing stored, but from one block of queries to the next."""
    stored: dict[int, Any] = {}
    fits = len(blocks(len(images), 4 * bound.bytes_stored)) == 1

    def prepare(g: Gaussian, start: int) -> Any:
        if start in stored:
            return bound.restore(g, stored[start])
        features = bound.prepare_images(g, start)
        if fits:
            stored[start] = features.stored
        return features

    return _bounds(bound, queries, images, prepare, first)


def _bounds(
    bound: Bound,
    queries: Gaussian,
    images: Gaussian,
    prepare_images: Callable[[Gaussian, int], Any],
    first: int,
) -> Bounds:
    leading: list[Tensor] = []

    def prepare(g: Gaussian, side: str, start: int) -> Any:
        if side == "q":
            return prepare_images(g, start)
        features = bound.prepare_queries(g, first + start)
        leading.append(bound.leading_rows(features))
        return features

    values = all_pairs(queries, images, prepare, bound.lower_bounds, bound.bytes_per_image, torch.float64)
    lower, trailing = values if values.ndim == 3 else (values, values[:, :0])
    return Bounds(no_bound_if_not_finite(lower), trailing, torch.cat(leading))


def in_parts(prepare: Callable[[Gaussian, int], Any], g: Gaussian, start: int) -> Any:
    """Prepare images a few at a time."""
    columns = g.dim if g.factor is None else max(g.dim, g.factor.shape[2])
    size = max(1, WORKING_BYTES // (8 * g.dim * columns))
    return join((prepare(g[i : i + size], start + i) for i in range(0, len(g), size)), len(g))
