r"""Kullback-Leibler divergence between Gaussians, by one matrix product for all pairs.

With augmented moments :math:`M = \begin{pmatrix} \Sigma + \mu\mu^\top & \mu \\ \mu^\top & 1 \end{pmatrix}`
and augmented precisions :math:`R = \begin{pmatrix} P & -P\mu \\ -\mu^\top P & \mu^\top P \mu \end{pmatrix}`,
:math:`P = \Sigma^{-1}`, the trace and the Mahalanobis term of [geometric] eq. 7 are one inner product
:math:`\langle M_p, R_q \rangle`. Behind the pooled whitening both are near the identity, which is subtracted:
the product then holds only how the images differ, and float32 is enough for it.

The whitening belongs to the batch. So the rounding is bounded for each pair, and a pair for which it may
matter is computed from its two images alone; so are all pairs where they are few.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import BUDGET_BYTES, all_pairs, blocks, join
from retrieval_geometry.distances._certified import (
    ROUNDING,
    doubtful,
    in_dtype,
    product_rounding,
    replaced,
)
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
    gram_matrices,
    log_det,
    pack_symmetric,
    pooled_whitener,
    triangular_product_with_each,
)
from retrieval_geometry.distances._kl_pairs import (
    divergences_by_factors,
    divergences_by_traces,
    divergences_of_one,
)
from retrieval_geometry.image_models import Gaussian

MANY = 24
"""Pairs for each image, from which on it pays to whiten the images."""


def kl_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Kullback-Leibler divergence of every p from every q.

    .. math:: D(p \| q) = \frac12 \left[ \log\frac{|\Sigma_q|}{|\Sigma_p|} - D
              + \operatorname{tr}(\Sigma_q^{-1}\Sigma_p)
              + (\mu_q - \mu_p)^\top \Sigma_q^{-1} (\mu_q - \mu_p) \right]

    Source: [geometric] eq. 7. Derived in chapter 3.

    It is not symmetric and has no triangle inequality; it is 0 exactly where the distributions agree. The
    paper's discussion says "univariate" and means multivariate (erratum 0.7).

    The value of a pair depends on the pair: the rest of the batch changes it by less than 1e-3 of itself in
    float32, 1e-6 in float64. Otherwise it is as exact as the Cholesky factors of the two covariances.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in nats, at least 0.

    Raises:
        ValueError: a covariance is singular, or its correlation matrix is of a condition beyond 1e12 (the
            image is named; shrinkage is the remedy), float64 descriptors are outside 1e-130 to 1e130, a
            divergence is too large for the dtype, or ``p`` and ``q`` differ in dimension, dtype or device.

    Example:
        >>> p = Gaussian(torch.tensor([[0.0]]), torch.tensor([[[1.0]]]))
        >>> q = Gaussian(torch.tensor([[1.0]]), torch.tensor([[[2.0]]]))
        >>> kl_divergence(p, q).round(decimals=3)  # (log 2 - 1 + 1/2 + 1/2) / 2
        tensor([[0.3470]])
    """

    return _divergences(p, q, symmetric=False)


def symmetric_kl(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Symmetric Kullback-Leibler divergence: half the sum of both directions.

    .. math:: \tfrac12 D(p \| q) + \tfrac12 D(q \| p)

    Source: [geometric] section 2.2.1. Derived in chapter 3.

    The determinants cancel. It is symmetric and no metric: the triangle inequality fails for it and for its
    root.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in nats, at least 0.

    Raises:
        ValueError: as :func:`kl_divergence`.
    """

    return _divergences(p, q, symmetric=True)


def _divergences(p: Gaussian, q: Gaussian, symmetric: bool) -> Tensor:
    """Divergences of all pairs the cheapest way, and from their own factors where it may have spoilt them."""
    check_gaussians(p, q)
    n_images = len(p) + len(q)
    if not (len(p) and len(q)):
        return torch.zeros(len(p), len(q), dtype=p.dtype, device=p.device)
    if n_images == 2:
        pair = torch.ones(1, 1, dtype=torch.bool, device=p.device)
        return in_dtype(divergences_by_factors(p, q, pair, symmetric), p.dtype, "divergence")
    # Whitening costs two products an image, and then a pair costs one inner product: worth it for many.
    many = len(p) * len(q) > MANY * n_images
    if min(len(p), len(q)) == 1:
        found = divergences_of_one(p, q, symmetric)
    elif many:
        found = _by_products(p, q, p.dtype, symmetric)
    else:
        found = divergences_by_traces(p, q, symmetric)
    values, spoilt = found[0], doubtful(*found, p.dtype)
    # A solve a pair would now cost more than all products again in float64.
    if int(spoilt.sum()) > n_images and not (many and p.dtype == torch.float64):
        found = _by_products(p, q, torch.float64, symmetric)
        values, spoilt = found[0], doubtful(*found, p.dtype)
    if spoilt.any():  # near or ill-conditioned pairs, each from its two images alone
        values = replaced(values, spoilt, divergences_by_factors(p, q, spoilt, symmetric))
    return in_dtype(values, p.dtype, "divergence")


class _Packed(NamedTuple):
    """E of M = I + E, or F of R = J + F, where J is the identity with a zero in its corner."""

    vector: Tensor
    """``(B, D (D + 3) / 2)``: the block and the column, no corner."""
    own: Tensor
    """``(B,)``, float64: the trace, less or more the logarithm of the determinant of the covariance."""
    errors: Tensor
    """``(B, 4)``, float64: the inner product of those of E and of F bounds the rounding of the value."""


class _Augmented(NamedTuple):
    moment: _Packed
    precision: _Packed | None


def _by_products(p: Gaussian, q: Gaussian, dtype: torch.dtype, symmetric: bool) -> tuple[Tensor, Tensor]:
    """Divergences ``(P, Q)`` behind the whitening and bounds of their rounding there, both float64.

    The bounds leave out the rounding of a pair's own factorisation, which no way avoids.

    Args:
        p: P images.
        q: Q images.
        dtype: of the products.
        symmetric: half the sum of both directions.
    """

    centre, whitener = pooled_whitener(p, q)

    def prepare(g: Gaussian, side: str, start: int) -> _Augmented:
        # On a CPU, a few images at a time: intermediate matrices stay near its cache.
        size = 8 * p.dim**2 * (BUDGET_BYTES // 2**21 if g.device.type == "cpu" else 10)
        cuts, inverted = blocks(len(g), size), symmetric or side == "q"
        return join(
            (_augment(g[i], side, start + i.start, (centre, whitener), dtype, inverted) for i in cuts), len(g)
        )

    def compare(a: _Augmented, b: _Augmented) -> Tensor:
        # <M_p, R_q> holds trace and Mahalanobis term of eq. 7; the other direction is its mirror image.
        found = _products(a.moment, b.precision)
        return (found + _products(b.moment, a.precision).mT) / 4 if symmetric else found / 2

    bytes_per_image = torch.finfo(dtype).bits // 8 * (p.dim + 2) ** 2
    values, errors = all_pairs(p, q, prepare, compare, bytes_per_image, torch.float64)
    return values, errors


def _products(moment: _Packed, precision: _Packed | None) -> Tensor:
    """Twice the divergences, and bounds of their errors, ``(2, p, q)``."""
    assert precision is not None
    # tr E - log|S_p| of the one, tr F + log|S_q| of the other, and <E, F>: D cancels against that of eq. 7.
    values = moment.own.unsqueeze(1) + precision.own + (moment.vector @ precision.vector.mT).double()
    return torch.stack([values.clamp_min(0), moment.errors @ precision.errors.mT])


def _augment(
    g: Gaussian, side: str, start: int, frame: tuple[Tensor, Tensor], dtype: torch.dtype, inverted: bool
) -> _Augmented:
    r"""Augmented moments and, where they are wanted, precisions of :math:`W (x - m)`.

    :math:`\langle M, R \rangle = D + \operatorname{tr} E + \operatorname{tr} F + \langle E, F \rangle`,
    because the corner of E is zero.
    """
    centre, whitener = frame
    cov, lower = checked_cholesky(g, side, start)
    rounding = _rounding(g.mean, cov, centre, whitener)
    # W L is a Cholesky factor of W S W': the image is not factorised a second time.
    lower = triangular_product_with_each(whitener, lower)
    mean = ((g.mean.double() - centre) @ whitener.mT).unsqueeze(2)
    volume = log_det(lower)
    # Entries on and below the diagonal are computed; packing takes those on and above it.
    block = gram_matrices(lower, triangular=True).mT
    moment = _packed(block + mean @ mean.mT, mean, -volume, dtype)
    if not inverted:
        return _Augmented(_with_moment_errors(moment, rounding), None)
    # R of the module's head: the block P, the column -P m, the corner m'P m.
    inverse = torch.cholesky_inverse(lower)
    pull = inverse @ mean
    precision = _packed(inverse, -pull, volume + (mean * pull).sum(dim=(1, 2)), dtype)
    return _Augmented(_with_moment_errors(moment, rounding), _with_precision_errors(precision, rounding))


def _packed(block: Tensor, column: Tensor, own: Tensor, dtype: torch.dtype) -> _Packed:
    """A symmetric block less the identity, and a column; as errors the norms of both."""
    block = block - torch.eye(block.shape[-1], dtype=block.dtype, device=block.device)
    # sqrt 2 off the diagonal: one product of vectors is then the Frobenius product of matrices.
    parts = [pack_symmetric(block, dtype), (2**0.5 * column.squeeze(2)).to(dtype)]
    norms = [torch.linalg.vector_norm(part.detach(), dim=1, dtype=torch.float64) for part in parts]
    trace = block.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return _Packed(torch.cat(parts, dim=1), own + trace, torch.stack(norms, dim=1))


@torch.no_grad()
def _rounding(mean: Tensor, cov: Tensor, centre: Tensor, whitener: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds ``(B,)`` of the norm of ``|W| |L|``, L the Cholesky factors, and of the means' rounding."""
    # A row of L is as long as its deviation: |W| times deviations bounds |W| |L| row by row.
    spread = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    far = mean.double().abs() + centre.abs()
    reach, shift = ((x @ whitener.abs().mT).norm(dim=1) for x in (spread, far))
    return reach, ROUNDING * shift


def _with_moment_errors(moment: _Packed, rounding: tuple[Tensor, Tensor]) -> _Packed:
    """Norms of E, times the rounding of the product; the error of M in float64, and the norm of M."""
    reach, shift = rounding
    # Triangle inequality: |M| is at most |E| + |I|.
    size = moment.errors.square().sum(dim=1).sqrt() + _identity(moment)
    inside = product_rounding(moment.vector.dtype, moment.vector.shape[1]) * moment.errors
    own = ROUNDING * (reach.square() + size) + shift * (1 + size)
    return moment._replace(errors=torch.cat([inside, torch.stack([own, size], dim=1)], dim=1))


def _with_precision_errors(precision: _Packed, rounding: tuple[Tensor, Tensor]) -> _Packed:
    """Norms of F; the norm of R, and its error in float64."""
    reach, shift = rounding
    size = precision.errors.square().sum(dim=1).sqrt() + _identity(precision)
    # The inverse factor is off by its own length times that of the factor, relatively.
    own = size * (ROUNDING * reach * size.sqrt() + shift * (1 + size))
    return precision._replace(errors=torch.cat([precision.errors, torch.stack([size, own], dim=1)], dim=1))


def _identity(packed: _Packed) -> float:
    """The norm of the identity, from the length D (D + 3) / 2 of a packed vector."""
    n = packed.vector.shape[1]  # D (D + 3) / 2, solved for D
    return (((9 + 8 * n) ** 0.5 - 3) / 2) ** 0.5
