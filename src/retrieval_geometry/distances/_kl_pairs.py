r"""Divergences between Gaussians from the two images of each pair alone, in float64.

*By traces*, an image is inverted once and a pair costs an inner product of matrices; terms of both signs
cancel where images are near each other or ill-conditioned, and a bound says where. *By factors*, a pair costs
a triangular solve, and no term is negative.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._tolerances import LOG_SERIES
from retrieval_geometry.distances._blocks import BUDGET_BYTES, all_pairs, blocks
from retrieval_geometry.distances._certified import ROUNDING, product_rounding
from retrieval_geometry.distances._gaussians import BAND, checked_cholesky, log_det
from retrieval_geometry.distances._pairs import Factored, by_factors, zero_if_identical
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


class _Factored(NamedTuple):
    image: _Image
    factors: Factored


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
        return _image(g, *checked_cholesky(g, side, start), inverted=symmetric or side == "q")

    def compare(a: _Image, b: _Image) -> Tensor:
        found = _by_traces(a.moments, b.moments, b.precisions)
        return (found + _by_traces(b.moments, a.moments, a.precisions).mT) / 2 if symmetric else found

    values, errors = all_pairs(p, q, prepare, compare, 16 * p.dim**2, torch.float64)
    return values, errors


def divergences_of_one(p: Gaussian, q: Gaussian, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Divergences ``(P, Q)`` and bounds of their rounding where one side is a single image, both float64.

    Only the single image is inverted. In the symmetric case its divergences from the others come by factors,
    the opposite ones by traces. The bounds leave out the rounding of the factors.
    """
    alone = "p" if len(p) == 1 else "q"

    def prepare(g: Gaussian, side: str, start: int) -> _Factored:
        cov, lower = checked_cholesky(g, side, start)
        image = _image(g, cov, lower, inverted=symmetric and side == alone)
        return _Factored(image, Factored(image.moments.mean, lower))

    def compare(a: _Factored, b: _Factored) -> Tensor:
        one, others = (a, b) if alone == "p" else (b, a)
        # D(other | one) needs the inverse of the one; D(one | other) a solve with the other's factor.
        if symmetric:
            values, errors = _by_traces(others.image.moments, one.image.moments, one.image.precisions)
            values = (values.squeeze(1) + _one_way(one.factors, others.factors)) / 2
            found = torch.stack([values, errors.squeeze(1) / 2])
        else:
            values = zero_if_identical(_one_way(a.factors, b.factors), a.factors, b.factors)
            found = torch.stack([values, torch.zeros_like(values)])
        return found.unsqueeze(1 if alone == "p" else 2)

    # On a CPU, an image at a time: its matrices stay near the cache.
    share = BUDGET_BYTES // 2**21 if p.device.type == "cpu" else 4
    values, errors = all_pairs(p, q, prepare, compare, 8 * p.dim**2 * share, torch.float64)
    return values, errors


def _image(g: Gaussian, cov: Tensor, lower: Tensor, inverted: bool) -> _Image:
    deviations = cov.detach().diagonal(dim1=-2, dim2=-1).sqrt()
    moments = _Moments(g.mean.double(), cov, log_det(lower), deviations)
    if not inverted:
        return _Image(moments, None)
    inverse = torch.cholesky_inverse(lower).mT.contiguous()
    opposite = inverse.detach().diagonal(dim1=-2, dim2=-1).sqrt()
    # An inverse is off by the root of the condition of the correlations, of which this is a lower bound.
    rounding = product_rounding(torch.float64, g.dim**2) + ROUNDING * (deviations * opposite).amax(dim=1)
    return _Image(moments, _Precisions(inverse, opposite, rounding))


def _by_traces(p: _Moments, q: _Moments, precisions: _Precisions | None) -> Tensor:
    """Divergences and their errors, ``(2, p, q)``."""
    assert precisions is not None
    inverse, deviations, rounding = precisions
    volumes, dim = q.volume - p.volume.unsqueeze(1), p.mean.shape[1]
    traces = p.cov.flatten(1) @ inverse.flatten(1).mT  # tr(S_q^-1 S_p) of all pairs, one product
    # No entry is larger than the product of its two deviations.
    sizes = (p.deviations @ deviations.mT).square()
    shifts = []
    for j in blocks(len(q.mean), 16 * p.mean.numel()):
        difference = p.mean - q.mean[j].unsqueeze(1)  # before the product: no digits lost far from 0
        shifts.append((torch.bmm(difference, inverse[j]) * difference).sum(dim=2).mT)
        sizes[:, j] += (difference.detach().abs() @ deviations[j].unsqueeze(2)).squeeze(2).square().mT
    values = ((volumes - dim) + traces + torch.cat(shifts, dim=1)).clamp_min(0) / 2
    # The logarithms and D round by themselves, whatever they cancel to.
    own = p.volume.detach().abs().unsqueeze(1) + q.volume.detach().abs() + dim
    return torch.stack([values, (sizes * rounding + ROUNDING * own) / 2])


def divergences_by_factors(p: Gaussian, q: Gaussian, wanted: Tensor, symmetric: bool) -> Tensor:
    """Divergences of the pairs that are ``wanted``, ``(P, Q)``, float64; 0 elsewhere.

    Their error is that of the Cholesky factors, relative to the value, and 0 between identical images.
    """
    return by_factors(p, q, wanted, _both_ways if symmetric else _one_way)


def _both_ways(p: Factored, q: Factored) -> Tensor:
    return (_one_way(p, q) + _one_way(q, p)) / 2


def _one_way(p: Factored, q: Factored) -> Tensor:
    r"""Divergences as sums of terms that are not negative, so that nothing cancels.

    With :math:`X = L_q^{-1} L_p`, lower triangular: :math:`\frac12 \big[ \sum_i (x_{ii}^2 - 1 - 2 \log
    x_{ii}) + \sum_{i > j} x_{ij}^2 + \| L_q^{-1} (\mu_p - \mu_q) \|^2 \big]`.
    """
    below, pivots = p.mean.new_zeros(max(len(p.mean), len(q.mean))), []
    for start in range(0, p.lower.shape[-1], BAND):
        # Above the rows of a band of columns there are only zeros.
        rows, columns = slice(start, None), slice(start, start + BAND)
        band = torch.linalg.solve_triangular(q.lower[:, rows, rows], p.lower[:, rows, columns], upper=False)
        # On the diagonal block the pivots x_ii, to be logged; all else only adds squares.
        square, rest = band[:, :BAND], band[:, BAND:]
        pivots.append(square.diagonal(dim1=-2, dim2=-1))
        below = below + square.tril(-1).square().sum(dim=(1, 2)) + rest.square().sum(dim=(1, 2))
    shift = torch.linalg.solve_triangular(q.lower, (p.mean - q.mean).unsqueeze(2), upper=False)
    # x^2 - 1 - 2 log x = t^2 + 2 (t - log(1 + t)) with t = x - 1: two terms that are not negative.
    diagonal = torch.cat(pivots, dim=1)
    t = diagonal - 1
    small = t.abs() < LOG_SERIES
    # t - log(1 + t), by its series where the two cancel.
    s = torch.where(small, t, 0.0)
    series = s.square() * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s / 5)))
    rest = torch.where(small, series, t - torch.where(small, 1.0, diagonal).log())
    return ((t.square() + 2 * rest).sum(dim=1) + below + shift.square().sum(dim=(1, 2))) / 2
