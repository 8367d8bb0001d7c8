r"""Distances on the manifold of positive definite matrices: affine-invariant, Stein, log-Euclidean.

They compare covariances only; the means are not looked at. All need full rank. Affine invariance means one
*common* congruence :math:`G \Sigma G^\top` of both images; rescaling or whitening each image by itself
changes the distance (erratum 0.6).
"""

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import Comparison, all_pairs, blocks
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
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
from retrieval_geometry.image_models import Gaussian


def affine_invariant_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Affine-invariant Riemannian distance of the covariances ([geometric] eq. 14).

    .. math:: d(p, q) = \left\| \log (\Sigma_p^{-1/2} \Sigma_q \Sigma_p^{-1/2}) \right\|_F
              = \Big[ \sum_c \log^2 \lambda_c (\Sigma_p^{-1} \Sigma_q) \Big]^{1/2}

    A metric. Computed by the eigenvalues of :math:`L^{-1} \Sigma_q L^{-\top}` with the Cholesky factor L of
    :math:`\Sigma_p`, inverted once an image, in float64.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, without unit, at least 0.

    Raises:
        ValueError: a covariance is singular (the image is named; shrinkage is the remedy), or ``p`` and ``q``
            differ in dimension, dtype or device.

    Example:
        >>> p, q = (Gaussian(torch.zeros(1, 2), v * torch.eye(2)[None]) for v in (1.0, torch.e))
        >>> affine_invariant_distance(p, q)
        tensor([[1.4142]])
    """
    check_gaussians(p, q)
    return all_pairs(p, q, *affine_invariant_comparison(p, q))


def affine_invariant_comparison(p: Gaussian, q: Gaussian) -> Comparison:
    """How :func:`affine_invariant_distance` prepares images and compares what it prepared."""

    def prepare(g: Gaussian, side: str, start: int) -> Tensor:
        lower = pad_identity(checked_cholesky(g, side, start)[1])
        return inverse_factor(lower).contiguous() if side == "p" else lower

    return Comparison(prepare, _log_spectrum_norms, bytes_per_image=40 * p.dim**2)


def _log_spectrum_norms(whiteners: Tensor, factors: Tensor) -> Tensor:
    """Norms ``(p, q)`` of the logarithms of the eigenvalues of ``W C (W C)'``."""
    columns = blocks(len(factors), 32 * factors.shape[-1] ** 2)
    return torch.stack(
        [
            torch.cat(
                [_log_spectrum_norm(triangular_product_with_each(whitener, factors[j])) for j in columns]
            )
            for whitener in whiteners
        ]
    )


def _log_spectrum_norm(products: Tensor) -> Tensor:
    return safe_sqrt((2 * singular_values(products, triangular=True).log()).square().sum(dim=-1))


def stein_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Stein divergence (symmetric log-det, Jensen-Bregman) of the covariances, proposed in [geometric] 4.

    .. math:: S(p, q) = \log \left| \tfrac12 (\Sigma_p + \Sigma_q) \right|
              - \tfrac12 \log |\Sigma_p| - \tfrac12 \log |\Sigma_q|

    Its root is a metric (Sra 2012), invariant under a common congruence, and :math:`8 S \le d^2` for the
    affine-invariant d. One Cholesky factorisation a pair, behind a common whitening: there, well-conditioned
    float32 inputs can be factorised in float32.

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
        return cov, log_det(torch.linalg.cholesky_ex(cov).L)

    return all_pairs(p, q, prepare, _stein_block, bytes_per_image=40 * p.dim**2)


def _stein_block(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    rows = []
    columns = blocks(len(b[0]), 24 * b[0].shape[-1] ** 2)
    for cov, volume in zip(*a, strict=True):
        means = (torch.linalg.cholesky_ex((cov + b[0][j]) / 2).L for j in columns)
        rows.append(torch.cat([log_det(lower) for lower in means]) - (volume + b[1]) / 2)
    return torch.stack(rows).clamp_min(0)


def log_euclidean_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Log-Euclidean distance of the covariances.

    .. math:: d(p, q) = \| \log \Sigma_p - \log \Sigma_q \|_F

    A metric; at most the affine-invariant distance, and equal to it where the covariances commute. Invariant
    under common rotations and scalings, not under every congruence.

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
        cov, _ = checked_cholesky(g, side, start)
        return pack_symmetric(symmetric_log(cov), torch.float64)

    return all_pairs(p, q, prepare, euclidean_by_product, bytes_per_image=60 * p.dim**2)


def euclidean_by_product(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances ``(P, Q)`` of long vectors by a matrix product.

    Pairs so near that the product cancels are subtracted entry by entry: equal vectors have distance 0.
    """
    centre = x.detach().mean(dim=0)
    x, y = x - centre, y - centre
    own = x.square().sum(dim=1, keepdim=True) + y.square().sum(dim=1)
    squares = own - 2 * x @ y.mT
    i, j = (squares <= 1e-8 * own).nonzero(as_tuple=True)
    if len(i):
        exact = torch.stack([(x[a] - y[b]).square().sum() for a, b in zip(i, j, strict=True)])
        squares = squares.index_put((i, j), exact)
    return safe_sqrt(squares)


def symmetric_log(matrices: Tensor) -> Tensor:
    """Matrix logarithms of positive definite matrices ``(B, D, D)``."""
    return _SymmetricLog.apply(matrices)


class _SymmetricLog(torch.autograd.Function):
    """Matrix logarithm by eigenvectors, with the gradient of Daleckii and Krein.

    Differentiating the eigenvectors divides by differences of eigenvalues; divided differences of the
    logarithm do not, and are 1 / eigenvalue where two eigenvalues agree.
    """

    @staticmethod
    def forward(ctx: object, matrices: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrices)
        ctx.save_for_backward(values, vectors)  # type: ignore[attr-defined]
        return (vectors * values.log().unsqueeze(-2)) @ vectors.mT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, grad: Tensor) -> Tensor:
        values, vectors = ctx.saved_tensors  # type: ignore[attr-defined]
        total = values.unsqueeze(-1) + values.unsqueeze(-2)
        # (log a - log b) / (a - b) = 2 atanh(t) / t / (a + b) with t = (a - b) / (a + b).
        t = (values.unsqueeze(-1) - values.unsqueeze(-2)) / total
        small = t.abs() < 1e-4
        ratio = torch.where(small, 1 + t.square() / 3, torch.atanh(t) / torch.where(small, 1.0, t))
        inner = vectors.mT @ grad @ vectors
        return vectors @ (2 * ratio / total * inner) @ vectors.mT
