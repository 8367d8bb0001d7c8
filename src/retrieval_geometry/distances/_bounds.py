r"""Lower bounds of distances, for all pairs at the price of matrix products.

Each is a theorem less a margin for rounding, so that a bound is never above the distance that is computed for
the same pair. The margin has two parts. What the bound itself rounds has a worst-case constant: :func:`gamma`
for sums and products, :func:`householder` for factorisations. What the distance rounds is measured, not
proved: :data:`MARGIN`. Where a bound overflows or is no number there is no bound: it is 0.

What is computed of an image depends on a common frame, which the database suggests; the theorems hold in any
frame, so that images may come and go while the frame stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs, blocks, join, take
from retrieval_geometry.image_models import Gaussian

MARGIN = 1e-8
"""Rounding of the distance itself, relative to the size of what it is computed from. Measured, not proved:
the largest error seen, of a fidelity from a Gram matrix of condition 1e12, was 1e-10."""

UNIT = 2.0**-53
"""Rounding of one operation in float64, relative."""

WORKING_BYTES = 2**21
"""Of one kind of matrix of the images that are prepared at a time: few enough to stay near a CPU's cache."""


def gamma(n: int) -> float:
    r"""The constant :math:`\gamma_n = n u / (1 - n u)`: what n roundings in a row change, relative.

    A sum of n products, in any order, errs by at most this multiple of the sum of their absolute values
    (Higham 2002, section 3.1).
    """
    return n * UNIT / (1 - n * UNIT)


def householder(n: int) -> float:
    """Backward error of n reflections from two sides, and the departure of their product from a rotation.

    In the Frobenius norm, relative, for matrices with up to n rows and columns: each reflection errs by
    ``gamma(10 n)`` (Higham 2002, lemma 19.3, whose small constant is taken as 10). The iteration that follows
    the reflections in an eigensolver is taken to lie within the same: measured, not proved.
    """
    return 2 * n * gamma(10 * n)


class Bounds(NamedTuple):
    """Lower bounds of all pairs, and what makes those of a few pairs sharper."""

    lower: Tensor
    """``(P, Q)`` float64, finite and at least 0."""
    rest: Tensor
    """``(P, Q)`` float64, the part of each bound that is not made sharper; empty where none can be."""
    leading: Tensor
    """``(P, r, D)`` float64, what compares a query with an image more sharply; empty likewise."""


class Bound(ABC):
    """A lower bound in a common frame: what it needs of queries and images, and how it compares them."""

    Frame: type[Any]
    """A named tuple of tensors, the frame; it makes a bound."""
    Kept: type[Any]
    """A named tuple of tensors, what is worth keeping of images: dear to compute, small to store."""
    bytes_per_image: int
    """Of all that is prepared of an image."""
    bytes_kept: int
    """Of what is kept of an image."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    @classmethod
    @abstractmethod
    def of(cls, images: Gaussian) -> "Bound":
        """The bound in the frame that a database suggests."""

    @abstractmethod
    def of_queries(self, g: Gaussian, start: int) -> Any:
        """All that is needed of some queries, the first of which has the index ``start``; checked."""

    @abstractmethod
    def of_images(self, g: Gaussian, start: int) -> Any:
        """Likewise of images of the database; its attribute ``kept`` is worth keeping."""

    @abstractmethod
    def completed(self, g: Gaussian, kept: Any) -> Any:
        """The same again from the images and what was kept of them, by no more than products."""

    @abstractmethod
    def compare(self, queries: Any, images: Any) -> Tensor:
        """Lower bounds ``(P, Q)``, float64; or ``(2, P, Q)``, with the rest of :class:`Bounds`."""

    @abstractmethod
    def leading(self, queries: Any) -> Tensor:
        """What makes the bounds of some queries sharper, ``(P, r, D)``; with r = 0 nothing does."""


def keep_all(bound: Bound, images: Gaussian) -> Any:
    """What a bound keeps of a database.

    Raises:
        ValueError: an image is none that the distance takes; it is named.
    """
    cuts = blocks(len(images), bound.bytes_per_image)
    return join((bound.of_images(images[cut], cut.start).kept for cut in cuts), len(images))


def kept_bounds(bound: Bound, queries: Gaussian, images: Gaussian, kept: Any, first: int = 0) -> Bounds:
    """Lower bounds from what :func:`keep_all` kept of the images.

    Args:
        bound: the bound.
        queries: P images, the first of which is image ``first`` of all queries.
        images: Q images.
        kept: what was kept of them.
        first: see above; for messages.
    """

    def prepare(g: Gaussian, start: int) -> Any:
        return bound.completed(g, take(kept, slice(start, start + len(g))))

    return _bounds(bound, queries, images, prepare, first)


def passing_bounds(bound: Bound, queries: Gaussian, images: Gaussian, first: int = 0) -> Bounds:
    """The same with nothing kept of the images but for the next block of queries."""
    kept: dict[int, Any] = {}
    keeps = len(blocks(len(images), 4 * bound.bytes_kept)) == 1

    def prepare(g: Gaussian, start: int) -> Any:
        if start in kept:
            return bound.completed(g, kept[start])
        features = bound.of_images(g, start)
        if keeps:
            kept[start] = features.kept
        return features

    return _bounds(bound, queries, images, prepare, first)


def _bounds(
    bound: Bound,
    queries: Gaussian,
    images: Gaussian,
    prepare_images: Callable[[Gaussian, int], Any],
    first: int,
) -> Bounds:
    leading = []

    def prepare(g: Gaussian, side: str, start: int) -> Any:
        if side == "q":
            return prepare_images(g, start)
        features = bound.of_queries(g, first + start)
        leading.append(bound.leading(features))
        return features

    values = all_pairs(queries, images, prepare, bound.compare, bound.bytes_per_image, torch.float64)
    lower, rest = values if values.ndim == 3 else (values, values[:, :0])
    return Bounds(no_bound_if_not_finite(lower), rest, torch.cat(leading))


def no_bound_if_not_finite(lower: Tensor) -> Tensor:
    """Lower bounds with 0 in place of NaN and infinity: what overflowed says nothing."""
    return lower.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)


def average_covariance(images: Gaussian) -> Tensor:
    """A multiple of the average covariance ``(D, D)``, float64, with a largest variance from 1/2 to 2.

    The identity where there is none: an image is NaN or infinite, and the checks of the images will name it,
    or all are zero.
    """
    largest = images.cov.diagonal(dim1=1, dim2=2).abs().amax(dim=0).max(dim=0).values.double()
    unit = root_unit(largest)
    total = torch.zeros(images.dim, images.dim, dtype=torch.float64, device=images.device)
    for cov in images.cov.split(64):
        total += (cov.double() / unit / unit / len(images)).sum(dim=0)
    average = (total + total.mT) / 2
    peak = average.diagonal().max()
    if not (bool(average.isfinite().all()) and float(peak) > 0):
        return torch.eye(images.dim, dtype=torch.float64, device=images.device)
    unit = root_unit(peak)
    return average / unit / unit


def root_unit(squares: Tensor) -> Tensor:
    """Powers of two near the roots of positive numbers: to divide by them is exact.

    ``squares / unit / unit`` lies from 1/2 to 2, or below where ``squares`` is below 1e-300. The unit is
    infinite where ``squares`` is above 1e300 or NaN: what is divided by it is 0, NaN when multiplied by it
    again.
    """
    usable = squares.clamp(1e-300, 1e300)
    mantissa, exponent = torch.frexp(usable)
    power = usable / mantissa
    power = torch.where(exponent % 2 == 0, power, power / 2)
    return torch.where(squares <= 1e300, power.sqrt(), torch.inf)


def in_parts(prepare: Callable[[Gaussian, int], Any], g: Gaussian, start: int) -> Any:
    """Prepare images a few at a time."""
    columns = g.dim if g.factor is None else max(g.dim, g.factor.shape[2])
    size = max(1, WORKING_BYTES // (8 * g.dim * columns))
    return join((prepare(g[i : i + size], start + i) for i in range(0, len(g), size)), len(g))
