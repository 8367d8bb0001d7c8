r"""Distances on the manifold of positive definite matrices: affine-invariant, Stein, log-Euclidean.

They compare covariances of full rank; the means do not count. Affine invariance means one *common* congruence
:math:`G \Sigma G^\top` of both images; rescaling or whitening each image by itself changes the distance
(erratum 0.6).
"""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import SHRINK, ImageError
from retrieval_geometry.distances._blocks import Comparison, all_pairs, blocks
from retrieval_geometry.distances._certified import doubtful, in_dtype, replaced
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
    image_namer,
    inverse_factor,
    log_det,
    pack_symmetric,
    pad_identity,
    pooled_whitener,
    product_with_each,
    safe_sqrt,
    singular_values,
    triangular_product_with_each,
)
from retrieval_geometry.distances._pairs import Factored, by_factors
from retrieval_geometry.image_models import Gaussian

SPAN = 1e-10
"""The smallest singular value over the largest, below which float64 has too few digits for its logarithm."""

TOO_FAR = (
    "the variances of the one over those of the other span a factor of more than 1e20, and float64 has too "
    "few digits for the smallest; rescale or shrink the images"
)


def affine_invariant_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Affine-invariant Riemannian distance of the covariances.

    .. math:: d(p, q) = \left\| \log (\Sigma_p^{-1/2} \Sigma_q \Sigma_p^{-1/2}) \right\|_F
              = \Big[ \sum_c \log^2 \lambda_c (\Sigma_p^{-1} \Sigma_q) \Big]^{1/2}

    Source: [geometric] eq. 14. Derived in chapter 3.

    It is a metric. The eigenvalues are those of :math:`L^{-1} \Sigma_q L^{-\top}` in float64, with the
    Cholesky factor L of :math:`\Sigma_p` inverted once an image. The error of a logarithm is about the
    precision of float64 times the condition of the correlation matrices and the root of the span of the
    eigenvalues; both are limited, so that it is at most 1e-4.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, without unit, at least 0.

    Raises:
        ValueError: a covariance is singular, or its correlation matrix is of a condition beyond 1e12 (the
            image is named; shrinkage is the remedy), the eigenvalues of a pair span more than 1e20 (it is
            named), float64 descriptors are outside 1e-130 to 1e130, or ``p`` and ``q`` differ in dimension,
            dtype or device.

    Example:
        >>> p, q = (Gaussian(torch.zeros(1, 2), v * torch.eye(2)[None]) for v in (1.0, torch.e))
        >>> affine_invariant_distance(p, q).round(decimals=3)  # the root of 1 + 1
        tensor([[1.4140]])
    """
    check_gaussians(p, q)
    prepare, _, bytes_per_image = affine_invariant_comparison(p, q)
    values = all_pairs(p, q, prepare, partial(_log_spectrum_norms, p.dim), bytes_per_image)
    lost = values.detach().isnan()
    if lost.any():
        i, j = lost.nonzero()[0].tolist()
        raise ValueError(f"image {i} of p and image {j} of q: {TOO_FAR}")
    return values


def affine_invariant_comparison(p: Gaussian, q: Gaussian) -> Comparison:
    """The preparation of images and their comparison, for :func:`affine_invariant_distance`."""

    def prepare(g: Gaussian, side: str, start: int) -> _Factors:
        cov, lower = checked_cholesky(g, side, start)
        lower = pad_identity(lower)
        size = cov.detach().diagonal(dim1=-2, dim2=-1).amax(dim=1).log2() / 2
        return _Factors(inverse_factor(lower).contiguous() if side == "p" else lower.contiguous(), size)

    def compare(a: _Factors, b: _Factors) -> Tensor:
        values = _log_spectrum_norms(p.dim, a, b)
        if values.detach().isnan().any():
            raise ValueError(f"two of the images: {TOO_FAR}")
        return values

    return Comparison(prepare, compare, bytes_per_image=40 * p.dim**2)


class _Factors(NamedTuple):
    matrix: Tensor
    """Cholesky factors or their inverses, with a block of the identity appended: ``pad_identity``."""
    size: Tensor
    """``(B,)``, the binary logarithm of the largest standard deviation."""


def _log_spectrum_norms(dim: int, a: _Factors, b: _Factors) -> Tensor:
    """Norms ``(p, q)`` of the logarithms of the eigenvalues of ``W C (W C)'``, W of a and C of b."""
    columns = blocks(len(b.size), 32 * b.matrix.shape[-1] ** 2)
    rows = []
    for whitener, size in zip(*a, strict=True):
        parts = (
            _log_spectrum_norm(triangular_product_with_each(whitener, b.matrix[j]), dim, b.size[j] - size)
            for j in columns
        )
        rows.append(torch.cat(list(parts)))
    return torch.stack(rows)


def _log_spectrum_norm(products: Tensor, dim: int, shift: Tensor) -> Tensor:
    """Norms ``(B,)`` for products of factors whose sizes differ by ``2**shift``; NaN where digits are lost.

    Images of very different sizes are brought to one first, by a power of two, lest the identity that was
    appended drown. Its own logarithms are taken off again: those of the rest are never smaller.
    """
    shift = torch.where(shift.abs() >= 8, shift.round(), 0.0)
    n_appended = products.shape[-1] - dim
    if shift.any():
        unit = torch.ones_like(products[0])
        unit[dim:, dim:] = 0
        products = products * (-shift[:, None, None] * unit).exp2()
    values = singular_values(products, triangular=True)  # their squares are the eigenvalues of eq. 14
    logs = 2 * values.log() + (2 * math.log(2) * shift).unsqueeze(1)
    appended = n_appended * (2 * math.log(2) * shift).square()
    norms = safe_sqrt(logs.square().sum(dim=-1) - appended)
    spent = values.detach().amin(dim=1) < SPAN * values.detach().amax(dim=1)
    return torch.where(spent, torch.nan, norms) if spent.any() else norms


def stein_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Stein divergence (symmetric log-det, Jensen-Bregman) of the covariances.

    .. math:: S(p, q) = \log \left| \tfrac12 (\Sigma_p + \Sigma_q) \right|
              - \tfrac12 \log |\Sigma_p| - \tfrac12 \log |\Sigma_q|

    Source: [geometric] section 4; Sra 2012. Derived in chapter 3.

    Its root is a metric, invariant under a common congruence, and :math:`8 S \le d^2` for the
    affine-invariant d. A pair costs one Cholesky factorisation behind a common whitening, where
    well-conditioned float32 inputs can be factorised in float32. Pairs so near that the rounding would show
    are compared by their own factors in float64: the rest of a batch changes a value by less than 1e-3 of
    itself in float32, 1e-6 in float64.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in nats, at least 0.

    Raises:
        ValueError: as :func:`affine_invariant_distance`.
    """
    check_gaussians(p, q)
    _, whitener = pooled_whitener(p, q)

    def prepare(g: Gaussian, side: str, start: int) -> tuple[Tensor, Tensor]:
        _, lower = checked_cholesky(g, side, start)
        lower = pad_identity(product_with_each(whitener, lower))
        # A float32 pivot is good to 1e-7 over its size; small ones are left to float64.
        steady = bool((lower.detach().diagonal(dim1=-2, dim2=-1).square() > 1e-3).all())
        cov = (lower @ lower.mT).to(g.dtype if steady else torch.float64)
        return cov, _log_det(cov)

    values = all_pairs(p, q, prepare, _stein_block, 40 * p.dim**2, torch.float64)
    errors = torch.full_like(values, 8 * p.dim**0.5 * torch.finfo(p.dtype).eps)
    near = doubtful(values, errors, p.dtype)  # the three logarithms cancel between near images
    if near.any():
        values = replaced(values, near, by_factors(p, q, near, _stein_of_pairs))
    return in_dtype(values, p.dtype, "divergence")


def _log_det(matrices: Tensor) -> Tensor:
    """The logarithms of determinants, float64; NaN where a matrix has none."""
    lower, info = torch.linalg.cholesky_ex(matrices)
    return torch.where(info == 0, log_det(lower), torch.nan)


def _stein_of_pairs(a: Factored, b: Factored) -> Tensor:
    """Divergences ``(n,)`` of n pairs, in coordinates in which the second image of each is the identity."""
    quotient = torch.linalg.solve_triangular(b.lower, a.lower, upper=False)
    eye = torch.eye(quotient.shape[-1], dtype=quotient.dtype, device=quotient.device)
    return (_log_det((quotient @ quotient.mT + eye) / 2) - log_det(quotient) / 2).clamp_min(0)


def _stein_block(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    rows = []
    columns = blocks(len(b[0]), 24 * b[0].shape[-1] ** 2)
    for cov, volume in zip(*a, strict=True):
        means = [_log_det((cov + b[0][j]) / 2) for j in columns]  # log |(S_p + S_q) / 2|, a Cholesky a pair
        rows.append(torch.cat(means) - (volume + b[1]) / 2)
    return torch.stack(rows).clamp_min(0)


def log_euclidean_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Log-Euclidean distance of the covariances.

    .. math:: d(p, q) = \| \log \Sigma_p - \log \Sigma_q \|_F

    Source: Arsigny et al. 2006. Derived in chapter 3.

    It is a metric, at most the affine-invariant distance, and equal to it where the covariances commute. It
    is invariant under common rotations and scalings, not under every congruence.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, without unit, at least 0. The gradient is right at repeated eigenvalues too.

    Raises:
        ValueError: as :func:`affine_invariant_distance`.
    """
    check_gaussians(p, q)

    def prepare(g: Gaussian, side: str, start: int) -> Tensor:
        cov, lower = checked_cholesky(g, side, start)
        values, vectors = _spectrum(cov.detach(), lower.detach())
        lost = values[:, 0] < SPAN**2 * values[:, -1]  # squares of singular values, so the square of the span
        if lost.any():
            after = f" span a factor of more than 1e20: {SHRINK}"
            raise ImageError("the variances of ", int(lost.nonzero()[0]), after, image_namer(side, start))
        return pack_symmetric(_SymmetricLog.apply(cov, values, vectors), torch.float64)

    return all_pairs(p, q, prepare, euclidean_by_product, bytes_per_image=60 * p.dim**2)


def euclidean_by_product(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances ``(P, Q)`` of long vectors by a matrix product.

    Pairs so near that the product cancels are subtracted entry by entry: equal vectors have distance 0.
    """
    centre = x.detach().mean(dim=0)  # a common shift changes no distance and shortens the vectors
    x, y = x - centre, y - centre
    own = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
    squares = own - 2 * x @ y.mT
    i, j = (squares <= 1e-8 * own).nonzero(as_tuple=True)
    if len(i):
        exact = torch.stack([(x[a] - y[b]).square().sum() for a, b in zip(i, j, strict=True)])
        squares = squares.index_put((i, j), exact)
    return safe_sqrt(squares)


def _spectrum(cov: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of covariances.

    An eigenvalue is off by rounding of the largest, a singular value of the factor by that of its root:
    small ones are taken from there.
    """
    values, vectors = torch.linalg.eigh(cov)
    wide = (values[:, 0] < 1e-8 * values[:, -1]).nonzero().flatten()
    if len(wide):
        left, roots, _ = torch.linalg.svd(lower[wide])
        values[wide], vectors[wide] = roots.square().flip(1), left.flip(2)
    return values, vectors


class _SymmetricLog(torch.autograd.Function):
    """Matrix logarithm from eigenvalues and eigenvectors, with the gradient of Daleckii and Krein.

    Differentiating the eigenvectors divides by differences of eigenvalues; divided differences of the
    logarithm do not, and are 1 / eigenvalue where two eigenvalues agree.
    """

    @staticmethod
    def forward(ctx: object, matrices: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        ctx.save_for_backward(values, vectors)  # type: ignore[attr-defined]
        return (vectors * values.log().unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None, None]:
        values, vectors = ctx.saved_tensors  # type: ignore[attr-defined]
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        # (log a - log b) / (a - b) = 2 atanh(t) / t / (a + b) with t = (a - b) / (a + b).
        t = (values.unsqueeze(-1) - values.unsqueeze(-2)) / total
        small = t.abs() < 1e-4
        ratio = torch.where(small, 1 + t.square() / 3, torch.atanh(t) / torch.where(small, 1.0, t))
        inner = vectors.mT @ grad @ vectors
        return vectors @ (2 * ratio / total * inner) @ vectors.mT, None, None
