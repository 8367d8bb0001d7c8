"""A lower bound of the affine-invariant distance."""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._bounds import MARGIN, Bound, in_parts
from retrieval_geometry.distances._gaussians import (
    checked_cholesky,
    pack_symmetric,
    pooled_whitener,
    product_with_each,
)
from retrieval_geometry.image_models import Gaussian

SINGULAR = 1e-14
"""Rounding of a singular value in float64, relative to the largest."""

CANCELLATION = 1e-12
"""Rounding of a squared distance that is computed by a product, relative to the squared norms."""


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

        return in_parts(rounded, g, start)

    def of_queries(self, g: Gaussian, start: int) -> LogsKept:
        """See :class:`Bound`."""

        def exact(part: Gaussian, first: int) -> LogsKept:
            packed, span = self._logs(part, "p", first)
            return LogsKept(packed, torch.zeros_like(span), span)

        return in_parts(exact, g, start)

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
