"""Lower bounds of the 2-Wasserstein distance: one for all pairs, and a sharper one for a few."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._bounds import MARGIN, ROUNDING, Bound, in_parts
from retrieval_geometry.distances._gaussians import pack_symmetric, product_with_each, squared_euclidean
from retrieval_geometry.distances.wasserstein import FactorFeatures, factor_features, given_features
from retrieval_geometry.image_models import Gaussian

LEADING = 8
"""One in so many columns of a factor leads; a nuclear norm of that size costs little beside the whole."""


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
        return in_parts(lambda part, first: self._spread(part, _features(part, "q", first)), g, start)

    def of_queries(self, g: Gaussian, start: int) -> _Query:
        """See :class:`Bound`."""
        return in_parts(self._query, g, start)

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

        return _Spread(kept, in_parts(pack, g, 0))

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
