"""A lower bound of the affine-invariant distance."""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._gaussians import (
    SQUARING_LOSS,
    checked_cholesky,
    inverse_factor,
    pack_symmetric,
    product_with_each,
)
from retrieval_geometry.distances.search._bounds import Bound, in_parts
from retrieval_geometry.distances.search._rounding import MARGIN, average_covariance, gamma, householder
from retrieval_geometry.image_models import Gaussian

SINGULAR = 1e-15
"""Rounding of a singular value or an eigenvalue by the distance, relative to the largest, over the dimension.
Measured, not proved."""

FARTHEST = 300.0
"""Logarithms of variances beyond it rule nothing out: the squares that the distance takes may overflow."""


class WhiteningFrame(NamedTuple):
    """The matrix W ``(D, D)`` with :math:`W M W^\\top = I` for the average covariance M, or a multiple."""

    whitener: Tensor


class StoredLogs(NamedTuple):
    """Covariances behind the common whitening."""

    packed: Tensor
    """``(B, D (D + 1) / 2)``, their logarithms in float32."""
    error: Tensor
    """``(B,)`` float64, at most so far are they from the exact ones; infinite where there is no bound."""
    span: Tensor
    """``(B,)`` float64, the logarithms of their condition numbers."""
    condition: Tensor
    """``(B,)`` float64: by this the distance may enlarge the rounding of an image."""

    @property
    def stored(self) -> "StoredLogs":
        """An index stores all of it."""
        return self


class AffineInvariantBound(Bound):
    r"""Lower bounds of the affine-invariant distance: the log-Euclidean one behind a common whitening.

    The exponential map does not shrink distances of positive definite matrices (Bhatia 2007, theorem 6.1.4):
    :math:`\| \log A - \log B \|_F \le d(A, B)`. A common congruence leaves d alone, and near the identity the
    two sides almost agree. All is computed by singular values of factors, so that rounding grows with the
    roots of the condition numbers, and so does what is taken off: by the triangle inequality the bound loses
    at most the distances of the computed logarithms, in float32 for the database, from the exact ones.

    What rounds a factor N to N + E moves its logarithm by at most the affine-invariant distance of the two,
    :math:`2 \| \log \sigma (I + N^{-1} E) \| \le 2.5 \| N^{-1} E \|_F` while that norm is below 0.1. For a
    product N = W L it is :math:`|N^{-1} E| \le \gamma_D |L^{-1}| |W^{-1}| |W| |L|`, which does not change
    with the units of the single dimensions. The distance rounds likewise, with an image's own factor for W.
    """

    Frame = WhiteningFrame
    Stored = StoredLogs

    def __init__(self, frame: WhiteningFrame) -> None:
        super().__init__(frame)
        whitener = frame.whitener
        dim = len(whitener)
        factor = inverse_factor(whitener)
        self._units = torch.linalg.vector_norm(factor, dim=1)
        self._condition = _norm(whitener * self._units) * _norm(factor / self._units.unsqueeze(1))
        self.bytes_per_image = 6 * dim * (dim + 1)
        self.bytes_stored = 2 * dim * (dim + 1) + 24

    @classmethod
    def build(cls, images: Gaussian) -> "AffineInvariantBound":
        """The bound behind the whitening of the average covariance."""
        average = average_covariance(images)
        factor, info = torch.linalg.cholesky_ex(average)
        return cls(WhiteningFrame(torch.eye(len(average)).to(average) if info else inverse_factor(factor)))

    def prepare_images(self, g: Gaussian, start: int) -> StoredLogs:
        """See :class:`Bound`."""

        def single(part: Gaussian, first: int) -> StoredLogs:
            exact = self._logs(part, "q", first)
            rounded = exact.packed.float()
            lost = torch.linalg.vector_norm(exact.packed - rounded, dim=1)
            return exact._replace(packed=rounded, error=exact.error + lost * (1 + MARGIN))

        return in_parts(single, g, start)

    def prepare_queries(self, g: Gaussian, start: int) -> StoredLogs:
        """See :class:`Bound`."""
        return in_parts(lambda part, first: self._logs(part, "p", first), g, start)

    def restore(self, g: Gaussian, stored: StoredLogs) -> StoredLogs:
        """See :class:`Bound`."""
        return stored

    def lower_bounds(self, queries: StoredLogs, images: StoredLogs) -> Tensor:
        """See :class:`Bound`."""
        x, y = queries.packed, images.packed.double()
        own = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
        distances = (own * (1 - 2 * gamma(x.shape[1] + 16)) - 2 * x @ y.mT).clamp_min(0).sqrt()
        errors = queries.error.unsqueeze(1) + images.error
        return (distances - errors) * (1 - MARGIN) - self._rounding_of_the_distance(queries, images)

    def leading_rows(self, queries: StoredLogs) -> Tensor:
        """See :class:`Bound`; this one is sharp enough."""
        return queries.packed[:, :0, None]

    def _rounding_of_the_distance(self, queries: StoredLogs, images: StoredLogs) -> Tensor:
        """What the distance may err ``(P, Q)``: by its product, and by singular values or their squares."""
        dim = len(self.frame.whitener)
        product = torch.outer(queries.condition, images.condition)
        span = queries.span.unsqueeze(1) + images.span
        squared = span.exp().clamp_max(1 / SQUARING_LOSS)
        relative = SINGULAR * dim * (product + (span / 2).exp() + squared)
        # The logarithm of 1 plus a relative error is no larger than the error only while that is small.
        return torch.where(relative <= 0.1, MARGIN * dim + 2 * relative, torch.inf)

    def _logs(self, g: Gaussian, side: str, start: int) -> StoredLogs:
        lower = checked_cholesky(g, side, start)[1]
        dim = g.dim
        whitened = product_with_each(self.frame.whitener, lower)
        vectors, values, _ = torch.linalg.svd(whitened)
        logs = 2 * values.clamp_min(torch.finfo(values.dtype).tiny).log()
        span, largest = logs[:, 0] - logs[:, -1], logs.abs().amax(dim=1)
        packed = pack_symmetric((vectors * logs.unsqueeze(1)) @ vectors.mT, torch.float64)
        inverse = inverse_factor(lower)
        condition = _norm(lower / self._units.unsqueeze(1)) * _norm(inverse * self._units)
        relative = gamma(dim) * self._condition * condition + householder(dim) * (span / 2).exp()
        error = 2.5 * dim**0.5 * relative + 3 * (householder(dim) + dim * gamma(dim)) * largest
        known = (largest <= FARTHEST) & (dim**0.5 * relative <= 0.1)
        error = torch.where(known, error, torch.inf)
        if side == "p":
            condition = condition * self._growth(lower, inverse)
        return StoredLogs(packed, error, span, condition)

    def _growth(self, lower: Tensor, inverse: Tensor) -> Tensor:
        """By how much solving with a triangular matrix may enlarge its rounding, ``(B,)``."""
        once = lower.abs() @ inverse.abs()
        return _norm(self._units * (once @ once) / self._units.unsqueeze(1))


def _norm(matrices: Tensor) -> Tensor:
    """Upper bounds of the spectral norms of matrices and of their absolute values."""
    sizes = matrices.abs()
    return (sizes.sum(dim=-1).amax(dim=-1) * sizes.sum(dim=-2).amax(dim=-1)).sqrt()
