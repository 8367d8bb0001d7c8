"""Lower bounds of the 2-Wasserstein distance: one for all pairs, and a sharper one for a few."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._gaussians import pack_symmetric, product_with_each, squared_euclidean
from retrieval_geometry.distances.search._bounds import Bound, in_parts
from retrieval_geometry.distances.search._rounding import (
    MARGIN,
    average_covariance,
    gamma,
    householder,
    no_bound_if_not_finite,
    root_unit,
)
from retrieval_geometry.distances.wasserstein import FactorFeatures, factor_features, given_features
from retrieval_geometry.image_models import Gaussian

LEADING = 8
"""One in so many columns of a factor leads; a nuclear norm of that size costs little beside the whole."""

SMALLEST = 1e-140
"""Traces that are not far above it rule nothing out: the distance's own squares may underflow."""


class WassersteinFrame(NamedTuple):
    """Eigenvalues ``(D,)`` and eigenvectors ``(D, D)`` of the average covariance, float64, in any unit."""

    values: Tensor
    basis: Tensor


class WassersteinStored(NamedTuple):
    """What an index stores of images, float64.

    Each covariance is divided by the square of its own unit, so that nothing overflows at any scale, and
    padded by what rounding may have taken from it: what bounds more than the covariance bounds it.
    """

    mean: Tensor
    """``(B, D)``."""
    trace: Tensor
    """``(B,)``, that of the covariance, as the distance has it."""
    unit: Tensor
    """``(B,)``, a power of two near the root of the trace; infinite where there is no bound."""
    total: Tensor
    """``(B,)``, the trace of the padded covariance in its unit, about 1."""
    mixedness: Tensor
    """``(B,)``, the root of the squared trace less the trace of the square."""
    deviations: Tensor
    """``(B, D)``, standard deviations along the common basis."""
    padding: Tensor
    """``(B,)``: the given covariance plus this multiple of the identity is at least what is compared."""


class _Spread(NamedTuple):
    stored: WassersteinStored
    packed: Tensor
    """``(B, D (D + 1) / 2)``, the padded covariances."""


class _Dual(NamedTuple):
    """A part of the dual bound of some queries."""

    packed: Tensor
    """``(B, D (D + 1) / 2)``, the matrices Y of the part, padded as well."""
    trace: Tensor
    """``(B,)``, their traces."""
    weight: Tensor
    """``(B,)``, the sums of the weights."""


class _Query(NamedTuple):
    spread: _Spread
    leading_rows: Tensor
    """``(B, r, D)``, the leading columns of the turned factor, as rows, in the unit of the descriptors."""
    dual_leading: _Dual
    dual_trailing: _Dual
    slack: Tensor
    """``(B,)``, what turning the factor may take from a fidelity, relative to the roots of the traces."""


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
      average to the query. The leading rows and the others are summed apart.

    The weights are those of the average plus a small multiple of the identity. A column of A in the null
    space of the average would have none; so :math:`\| a_i \| / w_i` is bounded, and Y with it.
    """

    Frame = WassersteinFrame
    Stored = WassersteinStored

    def __init__(self, frame: WassersteinFrame) -> None:
        super().__init__(frame)
        values, basis = frame
        dim = len(values)
        # An inner product of two packed matrices errs by this multiple of the product of their traces.
        self._rounding = gamma(dim * (dim + 1) // 2 + 16)
        # So much of the identity as makes the error of tr Y B no larger than tr Y B itself need be.
        values = values.clamp_min(0)
        self._root = basis * (values + self._rounding * values.sum()).sqrt()
        # Pinching in a basis that is none by so much: F <= sum + |Q Q' - I| sqrt(tr tr); and its own sum.
        identity = torch.eye(dim, dtype=basis.dtype, device=basis.device)
        self._defect = torch.linalg.matrix_norm(basis @ basis.mT - identity) + 2 * (dim + 2) * gamma(dim)
        self.bytes_per_image = 12 * dim * (dim + 1)
        self.bytes_stored = 8 * (2 * dim + 5)

    @classmethod
    def build(cls, images: Gaussian) -> "WassersteinBound":
        """The bound in the eigenvectors of the average covariance."""
        return cls(WassersteinFrame(*torch.linalg.eigh(average_covariance(images))))

    def prepare_images(self, g: Gaussian, start: int) -> _Spread:
        """See :class:`Bound`."""
        return in_parts(lambda part, first: self._spread(part, _features(part, "q", first)), g, start)

    def prepare_queries(self, g: Gaussian, start: int) -> _Query:
        """See :class:`Bound`."""
        return in_parts(self._query, g, start)

    def restore(self, g: Gaussian, stored: WassersteinStored) -> _Spread:
        """See :class:`Bound`."""

        def pack(part: Gaussian, start: int) -> Tensor:
            some = slice(start, start + len(part))
            if part.factor is None:
                cov = _in_unit(_in_unit(part.cov.double(), stored.unit[some]), stored.unit[some])
                return _padded((cov + cov.mT) / 2, stored.padding[some])
            factor = _in_unit(part.factor.double(), stored.unit[some])
            return _padded(factor @ factor.mT, stored.padding[some])

        return _Spread(stored, in_parts(pack, g, 0))

    def lower_bounds(self, queries: _Query, images: _Spread) -> Tensor:
        """See :class:`Bound`."""
        left, right = queries.spread.stored, images.stored
        pinched, super_fidelity, dual, trailing = self.fidelities(queries, images)
        # fmin passes over what is no number.
        fidelity = torch.fmin(torch.fmin(pinched, super_fidelity), dual)
        return torch.stack([_from_fidelity(left, right, fidelity), trailing])

    def fidelities(self, queries: _Query, images: _Spread) -> Tensor:
        """Upper bounds ``(4, P, Q)`` of the fidelity: pinching, super-fidelity, duality; of the
        last the trailing part."""
        left, right = queries.spread.stored, images.stored
        totals = torch.outer(left.total, right.total)
        pinched = left.deviations @ right.deviations.mT + self._defect * totals.sqrt()
        products = queries.spread.packed @ images.packed.mT + self._rounding * totals
        super_fidelity = (products.clamp_min(0) + torch.outer(left.mixedness, right.mixedness)).sqrt()
        trailing = self._dual(queries.dual_trailing, images) + queries.slack.unsqueeze(1) * totals.sqrt()
        dual = self._dual(queries.dual_leading, images) + trailing
        return torch.stack([pinched, super_fidelity, dual, trailing]) * torch.outer(left.unit, right.unit)

    def leading_rows(self, queries: _Query) -> Tensor:
        """See :class:`Bound`."""
        return queries.leading_rows

    def _spread(self, g: Gaussian, features: FactorFeatures) -> _Spread:
        # Not the stored covariance, which float32 has rounded: the distance uses the factor.
        unit = root_unit(features.trace)
        factor = _in_unit(features.factor, unit)
        n_rows, n_columns = factor.shape[1:]
        cov = factor @ factor.mT
        padding = gamma(n_columns + 8) * _trace(cov)
        if g.factor is None:
            given = _in_unit(_in_unit(g.cov.double(), unit), unit)
            missing = torch.linalg.matrix_norm(cov - (given + given.mT) / 2)
            padding = padding + missing * (1 + gamma(n_rows**2 + 8))
        packed = _padded(cov, padding)
        total = _trace(cov)
        # The difference cancels for nearly rank-one images: rounding is added where it could lower the bound.
        squares = total.square() * (1 + 4 * self._rounding)
        mixedness = (squares - packed.square().sum(dim=1)).clamp_min(0).sqrt()
        deviations = product_with_each(self.frame.basis.mT, factor).square().sum(dim=2).sqrt()
        deviations = deviations * (1 + gamma(n_columns + 8)) + gamma(n_rows + 8) * total.sqrt().unsqueeze(1)
        stored = WassersteinStored(features.mean, features.trace, unit, total, mixedness, deviations, padding)
        return _Spread(stored, packed)

    def _query(self, g: Gaussian, start: int) -> _Query:
        features = _features(g, "p", start)
        spread = self._spread(g, features)
        turned, slack = self._turned(_in_unit(features.factor, spread.stored.unit))
        # Lengths of rows for the average image. Any positive numbers will do; an empty column has any weight.
        weights = product_with_each(self._root.mT, turned).square().sum(dim=1).sqrt().clamp_min(1e-300)
        size = max(1, g.dim // LEADING)
        parts = ((turned[:, :, cut], weights[:, cut]) for cut in (slice(size), slice(size, None)))
        dual_leading, dual_trailing = (_dual_part(*part) for part in parts)
        leading_rows = turned[:, :, :size].mT * spread.stored.unit[:, None, None]
        return _Query(spread, leading_rows.contiguous(), dual_leading, dual_trailing, slack)

    def _turned(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """Factors ``(B, D, R)`` with their columns turned, those of the largest weights first, and the slack.

        The bound needs no more of the rotation than that it is one: it may belong to another average. By how
        much it is none is measured; what remains is the rounding of its product with the factor.
        """
        slack = 0.0
        if factors.shape[2] > factors.shape[1]:
            slack = householder(factors.shape[2])
            factors = torch.linalg.qr(factors.mT, mode="r").R.mT
        rooted = product_with_each(self._root.mT, factors)
        rotation = torch.linalg.eigh(rooted.mT @ rooted).eigenvectors
        n = rotation.shape[1]
        identity = torch.eye(n, dtype=rotation.dtype, device=rotation.device)
        defect = torch.linalg.matrix_norm(rotation @ rotation.mT - identity)
        return factors @ rotation.flip(2), 2 * (slack + defect + 2 * (n + 2) * gamma(n))

    def _dual(self, part: _Dual, images: _Spread) -> Tensor:
        """Upper bounds ``(P, Q)`` of the sum of the norms of a part of the rows."""
        squares = part.packed @ images.packed.mT
        squares += self._rounding * torch.outer(part.trace, images.stored.total)
        return (part.weight.unsqueeze(1) * squares.clamp_min(0)).sqrt()


def _dual_part(columns: Tensor, weights: Tensor) -> _Dual:
    matrices = (columns / weights.unsqueeze(1)) @ columns.mT
    trace = _trace(matrices)
    rounding = gamma(columns.shape[2] + 8)
    packed = _padded(matrices, rounding * trace)
    return _Dual(packed, trace * (1 + matrices.shape[1] * rounding), weights.sum(dim=1) * (1 + rounding))


def _in_unit(matrices: Tensor, unit: Tensor) -> Tensor:
    return matrices / unit[:, None, None]


def _padded(matrices: Tensor, padding: Tensor) -> Tensor:
    """Packed matrices plus multiples of the identity; the matrices are changed."""
    matrices.diagonal(dim1=1, dim2=2).add_(padding.unsqueeze(1))
    return pack_symmetric(matrices, torch.float64)


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1)


def _from_fidelity(left: Any, right: Any, fidelity: Tensor) -> Tensor:
    """Squared distances of images with means and traces, less a margin, for upper bounds of the fidelity."""
    size = left.trace.unsqueeze(1) + right.trace
    spread = (size - 2 * fidelity - MARGIN * size - SMALLEST).clamp_min(0)
    # Squares of means may underflow here and not there: 1e-300 is more than all that is lost so.
    return squared_euclidean(left.mean, right.mean) * (1 - MARGIN) - 1e-300 + spread


def sharper_wasserstein(
    query: FactorFeatures, images: FactorFeatures, leading_rows: Tensor, trailing_fidelity: Tensor
) -> Tensor:
    """Lower bounds ``(Q,)`` of squared distances, from the nuclear norm of the leading rows.

    The nuclear norm of a matrix is at most the sum of those of its leading and of its other rows, and these
    are bounded as before.

    Args:
        query: one image.
        images: Q images.
        leading_rows: ``(r, D)``, of :class:`Bounds`.
        trailing_fidelity: ``(Q,)``, of :class:`Bounds`.
    """
    n_rows, dim = leading_rows.shape
    own = root_unit(leading_rows.square().sum())
    units = root_unit(images.trace)
    rows = product_with_each(leading_rows / own, _in_unit(images.factor, units))
    gram = rows @ rows.mT
    squares = torch.linalg.eigvalsh(gram)
    # A root of what rounding has made of a small eigenvalue might be too small.
    rounding = (gamma(images.factor.shape[2]) + householder(n_rows)) * _trace(gram)
    norms = (squares.clamp_min(0) + rounding.unsqueeze(1)).sqrt().sum(dim=1)
    # Both factors have norms below 2, so that the rows err by 4 gamma(dim) in theirs.
    norms = norms + 4 * n_rows**0.5 * gamma(dim)
    fidelity = norms * own * units + trailing_fidelity
    return no_bound_if_not_finite(_from_fidelity(query, images, fidelity.unsqueeze(0))[0])


def _features(g: Gaussian, side: str, start: int) -> FactorFeatures:
    """Checked images with any factor of their covariances."""
    if g.factor is None:
        return factor_features(g, side, start, centred=False)
    return given_features(g, g.factor, side, start)
