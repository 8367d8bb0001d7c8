r"""Lower bounds of distances, for all pairs at the price of matrix products.

Each is a theorem less a margin for rounding, so that a bound is never above the distance that is computed for
the same pair. What is computed of an image depends on a common frame, which the database suggests; the
theorems hold in any frame, so that images may come and go while the frame stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs, blocks, join, take
from retrieval_geometry.distances._gaussians import (
    checked_cholesky,
    pack_symmetric,
    pooled_whitener,
    product_with_each,
    squared_euclidean,
)
from retrieval_geometry.distances.wasserstein import FactorFeatures, factor_features, given_features
from retrieval_geometry.image_models import Gaussian

MARGIN = 1e-9
"""Rounding of a fidelity or a logarithm in float64, relative to the size of what it is computed from."""

ROUNDING = 1e-13
"""Rounding of a squared trace or of an inner product in float64, relative."""

SINGULAR = 1e-14
"""Rounding of a singular value in float64, relative to the largest."""

CANCELLATION = 1e-12
"""Rounding of a squared distance that is computed by a product, relative to the squared norms."""

LEADING = 8
"""One in so many columns of a factor leads; a nuclear norm of that size costs little beside the whole."""

WORKING_BYTES = 2**21
"""Of one kind of matrix of the images that are prepared at a time: few enough to stay near a CPU's cache."""


class Bounds(NamedTuple):
    """Lower bounds of all pairs, and what makes those of a few pairs sharper."""

    lower: Tensor
    """``(P, Q)`` float64."""
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
    return Bounds(lower, rest, torch.cat(leading))


def _in_parts(prepare: Callable[[Gaussian, int], Any], g: Gaussian, start: int) -> Any:
    """Prepare images a few at a time."""
    columns = g.dim if g.factor is None else max(g.dim, g.factor.shape[2])
    size = max(1, WORKING_BYTES // (8 * g.dim * columns))
    return join((prepare(g[i : i + size], start + i) for i in range(0, len(g), size)), len(g))


class WassersteinFrame(NamedTuple):
    """Eigenvalues ``(D,)`` and eigenvectors ``(D, D)`` of the average covariance, float64."""

    values: Tensor
    basis: Tensor


class WassersteinKept(NamedTuple):
    """What is kept of images, float64."""

    mean: Tensor
    """``(B, D)``."""
    trace: Tensor
    """``(B,)``."""
    purity: Tensor
    """``(B,)``, the trace of the square."""
    deviations: Tensor
    """``(B, D)``, standard deviations along the common basis."""
    lift: Tensor
    """``(B,)``: the covariance plus this multiple of the identity is at least what the distance compares."""


class _Spread(NamedTuple):
    kept: WassersteinKept
    packed: Tensor
    """``(B, D (D + 1) / 2)``, the covariances."""


class _Dual(NamedTuple):
    """A part of the dual bound of some queries."""

    packed: Tensor
    """``(B, D (D + 1) / 2)``, the matrices Y of the part."""
    trace: Tensor
    """``(B,)``, their traces."""
    weight: Tensor
    """``(B,)``, the sums of the weights."""


class _Query(NamedTuple):
    spread: _Spread
    leading: Tensor
    """``(B, r, D)``, the leading columns of the turned factor, as rows."""
    lead: _Dual
    rest: _Dual


class WassersteinBound(Bound):
    r"""Lower bounds of the squared 2-Wasserstein distance, from upper bounds of the fidelity F.

    Three bounds, of which the smallest counts:

    - pinching: F does not decrease if both covariances lose what is off the diagonal, in any common basis;
      here that of the average covariance: :math:`F \le \sum_i \sqrt{a_i b_i}`;
    - super-fidelity: :math:`F^2 \le \operatorname{tr} \Sigma_p \Sigma_q + \sqrt{(\operatorname{tr}^2 \Sigma_p
      - \operatorname{tr} \Sigma_p^2) (\operatorname{tr}^2 \Sigma_q - \operatorname{tr} \Sigma_q^2)}`;
    - duality: for any factors :math:`\Sigma_p = A A^\top`, :math:`\Sigma_q = C C^\top` the nuclear norm
      :math:`F = \| A^\top C \|_*` is at most the sum of the norms of the rows of :math:`A^\top C`, and by
      Cauchy and Schwarz :math:`\sum_i \| a_i^\top C \| \le (\sum_i w_i)^{1/2} (\operatorname{tr} Y
      \Sigma_q)^{1/2}` with :math:`Y = \sum_i a_i a_i^\top / w_i`, for any positive weights. A is turned,
      and w chosen, so that all is an equality for the average image; there Y is the transport map from the
      average to the query. The leading rows and the rest are summed apart.
    """

    Frame = WassersteinFrame
    Kept = WassersteinKept

    def __init__(self, frame: WassersteinFrame) -> None:
        super().__init__(frame)
        values, basis = frame
        dim = len(values)
        self._root = basis * values.clamp_min(0).sqrt()
        self.bytes_per_image = 12 * dim * (dim + 1)
        self.bytes_kept = 8 * (2 * dim + 3)

    @classmethod
    def of(cls, images: Gaussian) -> "WassersteinBound":
        """The bound in the eigenvectors of the average covariance."""
        total = torch.zeros(images.dim, images.dim, dtype=torch.float64, device=images.device)
        for cov in images.cov.split(64):
            total += cov.sum(dim=0, dtype=torch.float64)
        average = (total + total.mT) / (2 * len(images))
        if not average.isfinite().all():
            # An image is NaN or infinite, and the checks of the images will name it.
            average = torch.eye(images.dim, dtype=torch.float64, device=images.device)
        return cls(WassersteinFrame(*torch.linalg.eigh(average)))

    def of_images(self, g: Gaussian, start: int) -> _Spread:
        """See :class:`Bound`."""
        return _in_parts(lambda part, first: self._spread(part, _features(part, "q", first)), g, start)

    def of_queries(self, g: Gaussian, start: int) -> _Query:
        """See :class:`Bound`."""
        return _in_parts(self._query, g, start)

    def completed(self, g: Gaussian, kept: WassersteinKept) -> _Spread:
        """See :class:`Bound`."""

        def pack(part: Gaussian, start: int) -> Tensor:
            if part.factor is not None:
                factor = part.factor.double()
                return pack_symmetric(factor @ factor.mT, torch.float64)
            cov = part.cov.double()
            cov = (cov + cov.mT) / 2
            cov.diagonal(dim1=1, dim2=2).add_(kept.lift[start : start + len(part), None])
            return pack_symmetric(cov, torch.float64)

        return _Spread(kept, _in_parts(pack, g, 0))

    def compare(self, queries: _Query, images: _Spread) -> Tensor:
        """See :class:`Bound`."""
        left, right = queries.spread.kept, images.kept
        pinched = left.deviations @ right.deviations.mT
        # The differences cancel for nearly rank-one images: rounding is added where it could lower the bound.
        squares = [side.trace.square() for side in (left, right)]
        mixed = [
            (square - side.purity + ROUNDING * square).clamp_min(0).sqrt()
            for side, square in zip((left, right), squares, strict=True)
        ]
        products = queries.spread.packed @ images.packed.mT + ROUNDING * torch.outer(left.trace, right.trace)
        super_fidelity = (products + torch.outer(*mixed)).clamp_min(0).sqrt()
        rest = _dual(queries.rest, images)
        fidelity = torch.minimum(torch.minimum(pinched, super_fidelity), _dual(queries.lead, images) + rest)
        return torch.stack([_from_fidelity(left, right, fidelity), rest])

    def leading(self, queries: _Query) -> Tensor:
        """See :class:`Bound`."""
        return queries.leading

    def _spread(self, g: Gaussian, features: FactorFeatures) -> _Spread:
        # Not the stored covariance, which float32 has rounded: the distance uses the factor.
        cov = features.factor @ features.factor.mT
        packed = pack_symmetric(cov, torch.float64)
        turned = product_with_each(self.frame.basis.mT, features.factor)
        lift = torch.zeros_like(features.trace)
        if g.factor is None:
            given = g.cov.double()
            lift = torch.linalg.matrix_norm(cov - (given + given.mT) / 2)
        kept = WassersteinKept(
            features.mean,
            features.trace,
            packed.square().sum(dim=1),
            turned.square().sum(dim=2).sqrt(),
            lift,
        )
        return _Spread(kept, packed)

    def _query(self, g: Gaussian, start: int) -> _Query:
        features = _features(g, "p", start)
        turned, weights = self._turned(features.factor)
        size = max(1, g.dim // LEADING)
        parts = ((turned[:, :, cut], weights[:, cut]) for cut in (slice(size), slice(size, None)))
        lead, rest = (_dual_part(*part) for part in parts)
        return _Query(self._spread(g, features), turned[:, :, :size].mT.contiguous(), lead, rest)

    def _turned(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Factors ``(B, D, R)`` with their columns turned, and the weights ``(B, R)``, largest first.

        The bound needs no more of the rotation than that it is one: it may belong to another average.
        """
        if factors.shape[2] > factors.shape[1]:
            factors = torch.linalg.qr(factors.mT, mode="r").R.mT
        rooted = product_with_each(self._root.mT, factors)
        values, rotation = torch.linalg.eigh(rooted.mT @ rooted)
        weights = values.flip(1).clamp_min(0).sqrt()
        weights = weights.clamp_min(1e-9 * weights[:, :1] + torch.finfo(weights.dtype).tiny)
        return factors @ rotation.flip(2), weights


def _dual_part(columns: Tensor, weights: Tensor) -> _Dual:
    matrices = (columns / weights.unsqueeze(1)) @ columns.mT
    trace = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
    return _Dual(pack_symmetric(matrices, torch.float64), trace, weights.sum(dim=1))


def _dual(part: _Dual, images: _Spread) -> Tensor:
    """Upper bounds ``(P, Q)`` of the sum of the norms of a part of the rows."""
    squares = part.packed @ images.packed.mT
    squares += ROUNDING * torch.outer(part.trace, images.kept.trace)
    return (part.weight.unsqueeze(1) * squares.clamp_min(0)).sqrt()


def _from_fidelity(left: Any, right: Any, fidelity: Tensor) -> Tensor:
    """Squared distances of images with means and traces, less a margin, for upper bounds of the fidelity."""
    size = left.trace.unsqueeze(1) + right.trace
    spread = (size - 2 * fidelity - MARGIN * size).clamp_min(0)
    return squared_euclidean(left.mean, right.mean) * (1 - MARGIN) + spread


def sharper_wasserstein(
    query: FactorFeatures, images: FactorFeatures, leading: Tensor, rest: Tensor
) -> Tensor:
    """Lower bounds ``(Q,)`` of squared distances, from the nuclear norm of the leading rows.

    The nuclear norm of a matrix is at most the sum of those of its leading rows and of the rest, and the rest
    is bounded as before.

    Args:
        query: one image.
        images: Q images.
        leading: ``(r, D)``, of :class:`Bounds`.
        rest: ``(Q,)``, of :class:`Bounds`.
    """
    rows = product_with_each(leading, images.factor)
    squares = torch.linalg.eigvalsh(rows @ rows.mT)
    # A root of what rounding has made of a small eigenvalue might be too small.
    rounding = 1e-14 * len(leading) * squares[:, -1:].clamp_min(0)
    norms = (squares.clamp_min(0) + rounding).sqrt().sum(dim=1)
    return _from_fidelity(query, images, (norms + rest).unsqueeze(0))[0]


def _features(g: Gaussian, side: str, start: int) -> FactorFeatures:
    """Checked images with any factor of their covariances."""
    if g.factor is None:
        return factor_features(g, side, start, centred=False)
    return given_features(g, g.factor, side, start)


class WhiteningFrame(NamedTuple):
    """The matrix W ``(D, D)`` with :math:`W M W^\\top = I` for the average covariance M, float64."""

    whitener: Tensor


class LogsKept(NamedTuple):
    """Covariances behind the common whitening."""

    packed: Tensor
    """``(B, D (D + 1) / 2)``, their logarithms in float32."""
    error: Tensor
    """``(B,)`` float64, what float32 took off: a distance."""
    span: Tensor
    """``(B,)`` float64, the logarithms of their condition numbers."""

    @property
    def kept(self) -> "LogsKept":
        """All of it."""
        return self


class AffineInvariantBound(Bound):
    r"""Lower bounds of the affine-invariant distance: the log-Euclidean one behind a common whitening.

    The exponential map does not shrink distances of positive definite matrices (Bhatia 2007, theorem 6.1.4):
    :math:`\| \log A - \log B \|_F \le d(A, B)`. A common congruence leaves d alone, and near the identity the
    two sides almost agree. All is computed by singular values of factors, so that rounding grows with the
    roots of the condition numbers, and so does what is taken off. The logarithms of the database are kept in
    float32; by the triangle inequality the bound loses at most their distance from the exact ones.
    """

    Frame = WhiteningFrame
    Kept = LogsKept

    def __init__(self, frame: WhiteningFrame) -> None:
        super().__init__(frame)
        dim = len(frame.whitener)
        self.bytes_per_image = 6 * dim * (dim + 1)
        self.bytes_kept = 2 * dim * (dim + 1) + 16

    @classmethod
    def of(cls, images: Gaussian) -> "AffineInvariantBound":
        """The bound behind the whitening of the average covariance."""
        return cls(WhiteningFrame(pooled_whitener(images, images[:0])[1]))

    def of_images(self, g: Gaussian, start: int) -> LogsKept:
        """See :class:`Bound`."""

        def rounded(part: Gaussian, first: int) -> LogsKept:
            packed, span = self._logs(part, "q", first)
            stored = packed.float()
            return LogsKept(stored, torch.linalg.vector_norm(packed - stored, dim=1), span)

        return _in_parts(rounded, g, start)

    def of_queries(self, g: Gaussian, start: int) -> LogsKept:
        """See :class:`Bound`."""

        def exact(part: Gaussian, first: int) -> LogsKept:
            packed, span = self._logs(part, "p", first)
            return LogsKept(packed, torch.zeros_like(span), span)

        return _in_parts(exact, g, start)

    def completed(self, g: Gaussian, kept: LogsKept) -> LogsKept:
        """See :class:`Bound`."""
        return kept

    def compare(self, queries: LogsKept, images: LogsKept) -> Tensor:
        """See :class:`Bound`."""
        x, y = queries.packed, images.packed.double()
        own = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
        distances = (own * (1 - CANCELLATION) - 2 * x @ y.mT).clamp_min(0).sqrt()
        spans = queries.span.unsqueeze(1) + images.span
        rounding = MARGIN * len(self.frame.whitener) + SINGULAR * (spans / 2).exp()
        return ((distances - images.error) * (1 - MARGIN) - rounding).clamp_min(0)

    def leading(self, queries: LogsKept) -> Tensor:
        """See :class:`Bound`; this one is sharp enough."""
        return queries.packed[:, :0, None]

    def _logs(self, g: Gaussian, side: str, start: int) -> tuple[Tensor, Tensor]:
        lower = product_with_each(self.frame.whitener, checked_cholesky(g, side, start)[1])
        vectors, values, _ = torch.linalg.svd(lower)
        logs = 2 * values.clamp_min(torch.finfo(values.dtype).tiny).log()
        packed = pack_symmetric((vectors * logs.unsqueeze(1)) @ vectors.mT, torch.float64)
        return packed, logs[:, 0] - logs[:, -1]
