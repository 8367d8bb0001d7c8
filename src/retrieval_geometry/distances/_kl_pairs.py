r"""Divergences between Gaussians from the two images of each pair alone, in float64.

By traces an image is inverted once, and a pair costs an inner product of matrices; terms of both signs
cancel where images are near each other or ill-conditioned, which a bound tells. By factors a pair costs a
triangular solve, and no term is negative.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs, blocks
from retrieval_geometry.distances._certified import ROUNDING, product_rounding
from retrieval_geometry.distances._gaussians import checked_cholesky, log_det
from retrieval_geometry.distances._pairs import Factored, by_factors
from retrieval_geometry.image_models import Gaussian


class _Moments(NamedTuple):
    mean: Tensor
    cov: Tensor
    volume: Tensor
    """``(B,)``, the logarithms of the determinants of the covariances."""
    deviations: Tensor
    """``(B, D)``, the roots of the diagonals of the covariances."""


class _Precisions(NamedTuple):
    inverse: Tensor
    deviations: Tensor
    """``(B, D)``, the roots of the diagonals of the inverses."""
    rounding: Tensor
    """``(B,)``, relative error of an entry and of inner products with it."""


class _Image(NamedTuple):
    moments: _Moments
    precisions: _Precisions | None


def divergences_by_traces(p: Gaussian, q: Gaussian, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Divergences ``(P, Q)`` and bounds of their rounding, both float64.

    Args:
        p: P images.
        q: Q images.
        symmetric: half the sum of both directions.

    Raises:
        ValueError: a covariance is not positive definite, or nearly singular; the image is named.
    """

    def prepare(g: Gaussian, side: str, start: int) -> _Image:
        cov, lower = checked_cholesky(g, side, start)
        deviations = cov.detach().diagonal(dim1=-2, dim2=-1).sqrt()
        moments = _Moments(g.mean.double(), cov, log_det(lower), deviations)
        if side == "p" and not symmetric:
            return _Image(moments, None)
        inverse = torch.cholesky_inverse(lower)
        opposite = inverse.detach().diagonal(dim1=-2, dim2=-1).sqrt()
        # An inverse is off by the root of the condition of the correlations, of which this is a lower bound.
        rounding = product_rounding(torch.float64, p.dim**2) + ROUNDING * (deviations * opposite).amax(dim=1)
        return _Image(moments, _Precisions(inverse, opposite, rounding))

    def compare(a: _Image, b: _Image) -> Tensor:
        found = _by_traces(a.moments, b.moments, b.precisions)
        return (found + _by_traces(b.moments, a.moments, a.precisions).mT) / 2 if symmetric else found

    values, errors = all_pairs(p, q, prepare, compare, 16 * p.dim**2, torch.float64)
    return values, errors


def _by_traces(p: _Moments, q: _Moments, precisions: _Precisions | None) -> Tensor:
    """Divergences and their errors, ``(2, p, q)``."""
    assert precisions is not None
    inverse, deviations, rounding = precisions
    volumes, dim = q.volume - p.volume.unsqueeze(1), p.mean.shape[1]
    traces = p.cov.flatten(1) @ inverse.flatten(1).mT
    # No entry is larger than the product of its two deviations.
    sizes = (p.deviations @ deviations.mT).square()
    shifts = []
    for j in blocks(len(q.mean), 16 * p.mean.numel()):
        difference = p.mean - q.mean[j].unsqueeze(1)
        shifts.append((torch.bmm(difference, inverse[j]) * difference).sum(dim=2).mT)
        sizes[:, j] += (difference.detach().abs() @ deviations[j].unsqueeze(2)).squeeze(2).square().mT
    values = ((volumes - dim) + traces + torch.cat(shifts, dim=1)).clamp_min(0) / 2
    own = p.volume.detach().abs().unsqueeze(1) + q.volume.detach().abs() + dim
    return torch.stack([values, (sizes * rounding + ROUNDING * own) / 2])


def divergences_by_factors(p: Gaussian, q: Gaussian, wanted: Tensor, symmetric: bool) -> Tensor:
    """Divergences of the pairs that are ``wanted``, ``(P, Q)``, float64; 0 elsewhere.

    They are as exact as the Cholesky factors: relative to the value, and 0 between identical images.
    """

    def of_pairs(a: Factored, b: Factored) -> Tensor:
        return (_one_way(a, b) + _one_way(b, a)) / 2 if symmetric else _one_way(a, b)

    return by_factors(p, q, wanted, of_pairs)


def _one_way(p: Factored, q: Factored) -> Tensor:
    r"""Divergences as sums of terms that are not negative, so that nothing cancels.

    With :math:`X = L_q^{-1} L_p`, lower triangular: :math:`\frac12 \big[ \sum_i (x_{ii}^2 - 1 - 2 \log
    x_{ii}) + \sum_{i > j} x_{ij}^2 + \| L_q^{-1} (\mu_p - \mu_q) \|^2 \big]`.
    """
    quotient = torch.linalg.solve_triangular(q.lower, p.lower, upper=False)
    shift = torch.linalg.solve_triangular(q.lower, (p.mean - q.mean).unsqueeze(2), upper=False)
    diagonal = quotient.diagonal(dim1=-2, dim2=-1)
    t = diagonal - 1
    small = t.abs() < 1e-3
    # t - log(1 + t), by its series where the two cancel.
    s = torch.where(small, t, 0.0)
    series = s.square() * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s / 5)))
    rest = torch.where(small, series, t - torch.where(small, 1.0, diagonal).log())
    total = (t.square() + 2 * rest).sum(dim=1) + quotient.tril(-1).square().sum(dim=(1, 2))
    return (total + shift.square().sum(dim=(1, 2))) / 2
