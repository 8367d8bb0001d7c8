"""What the distances between Gaussians share: checks, whitening, and a safe square root."""

import torch
from torch import Tensor

from retrieval_geometry._check import (
    ImageName,
    check_finite,
    check_floating,
    check_same_kind,
    check_symmetric,
    cholesky_factor,
)
from retrieval_geometry.image_models import Gaussian

BAND = 128
"""Rows of a triangular matrix that are multiplied at a time, with what lies above the diagonal left out."""

SQUARING_LOSS = 1e-12
"""Eigenvalues of a Gram matrix below this share of the largest say too little of the singular values."""


def check_gaussians(p: Gaussian, q: Gaussian) -> None:
    """Refuse what cannot be compared.

    Raises:
        TypeError: not a :class:`Gaussian`.
        ValueError: other dimensions, dtypes or devices, or a mean that is NaN or infinite.
    """
    for name, g in (("p", p), ("q", q)):
        if not isinstance(g, Gaussian):
            raise TypeError(f"{name} must be a Gaussian, got {type(g).__name__}; a mixture has collapse()")
        check_finite(check_floating(g.mean, f"the mean in {name}"), "the mean", image_namer(name, 0))
    if p.dim != q.dim:
        raise ValueError(f"p and q must have the same dimension, got {p.dim} and {q.dim}")
    check_same_kind([p.mean, q.mean], "p and q")


def image_namer(side: str, start: int) -> ImageName:
    """Name an image of a block by its index in the whole batch."""
    return ImageName(side, start)


def checked_covariance(g: Gaussian, side: str, start: int) -> Tensor:
    """The covariances in float64 and exactly symmetric.

    Raises:
        ValueError: an entry is NaN or infinite, or a matrix is not symmetric; the image is named.
    """
    check_finite(g.cov, "the covariance", image_namer(side, start))
    check_symmetric(g.cov, "the covariance", image_namer(side, start))
    cov = g.cov.double()
    return (cov + cov.mT) / 2


def checked_cholesky(g: Gaussian, side: str, start: int) -> tuple[Tensor, Tensor]:
    """The covariances and their Cholesky factors, both in float64.

    Raises:
        ValueError: a covariance is not positive definite; the image and the remedy are named.
    """
    cov = checked_covariance(g, side, start)
    lower = cholesky_factor(pad_identity(cov), "the covariance", g.dtype, image_namer(side, start))
    return cov, lower[:, : g.dim, : g.dim].contiguous()


def pad_identity(matrices: Tensor) -> Tensor:
    """Extend ``(B, D, D)`` matrices by an identity block to a multiple of 8 rows.

    The last bits of a matrix product or a factorisation depend on where in memory a matrix begins. With whole
    cache lines all begin alike, and equal images get equal distances, bit by bit, wherever they stand in a
    batch: ties stay ties.
    """
    missing = -matrices.shape[-1] % 8
    if not missing:
        return matrices
    padded = torch.nn.functional.pad(matrices, (0, missing, 0, missing))
    ones = torch.zeros(padded.shape[-1], dtype=padded.dtype, device=padded.device)
    ones[-missing:] = 1
    return padded + torch.diag(ones)


def product_with_each(left: Tensor, right: Tensor) -> Tensor:
    """Products ``(B, n, m)`` of one matrix ``(n, k)`` with each of ``(B, k, m)``, one by one.

    ``left @ right`` may merge them into one wide product, whose rounding depends on the neighbours.
    """
    return torch.bmm(left.expand(len(right), -1, -1), right)


def triangular_product_with_each(left: Tensor, right: Tensor) -> Tensor:
    """The same where all matrices are lower triangular: in bands of rows, without most of the zeros."""
    if left.requires_grad or right.requires_grad:
        return product_with_each(left, right)
    products = torch.zeros_like(right)
    for start in range(0, len(left), BAND):
        rows, known = slice(start, start + BAND), slice(0, start + BAND)
        products[:, rows, known] = product_with_each(left[rows, known], right[:, known, known])
    return products


def gram_matrices(products: Tensor, triangular: bool = False) -> Tensor:
    """``products @ products.mT`` ``(B, n, n)``, what lies above the diagonal blocks left out if it can be.

    For a gradient the matrices are whole.

    Args:
        products: ``(B, n, m)``.
        triangular: they are lower triangular.
    """
    if products.requires_grad:
        return products @ products.mT
    n, m = products.shape[1:]
    gram = products.new_zeros(len(products), n, n)
    for start in range(0, n, BAND):
        stop = min(start + BAND, n)
        used = slice(0, stop if triangular else m)
        gram[:, start:, start:stop] = products[:, start:, used] @ products[:, start:stop, used].mT
    return gram


def inverse_factor(lower: Tensor) -> Tensor:
    """The inverses of lower triangular matrices, lower triangular themselves."""
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)


@torch.no_grad()
def pooled_whitener(p: Gaussian, q: Gaussian) -> tuple[Tensor, Tensor]:
    r"""The mean m and the matrix W that whiten the average image: :math:`W \bar\Sigma W^\top = I`.

    Divergences that do not change under a common affine map :math:`x \mapsto W (x - m)` are computed behind
    it: there, all covariances are near the identity, and a float32 product keeps its digits. It is a constant
    for the gradient, because the divergence does not depend on it.

    Returns:
        m ``(D,)`` and W ``(D, D)``, lower triangular, in float64.
    """
    total = torch.zeros(p.dim, p.dim, dtype=torch.float64, device=p.device)
    for g in (p, q):
        for cov in g.cov.split(64):
            total += cov.sum(dim=0, dtype=torch.float64)
    mean = torch.cat([p.mean, q.mean]).double().mean(dim=0)
    pooled = (total + total.mT) / (2 * (len(p) + len(q)))
    factor, info = torch.linalg.cholesky_ex(pooled)
    # No average: an image is singular, infinite or NaN, and the checks of the images will name it.
    usable = int(info) == 0 and bool(factor.isfinite().all())
    return mean, inverse_factor(factor) if usable else torch.eye(p.dim, dtype=mean.dtype, device=p.device)


def log_det(lower: Tensor) -> Tensor:
    """The logarithm of the determinant of ``lower @ lower.mT``, in float64."""
    return 2 * lower.diagonal(dim1=-2, dim2=-1).double().log().sum(dim=-1)


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root of ``max(x, 0)``, with gradient 0 where it is 0 instead of infinity."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def singular_values(products: Tensor, triangular: bool = False) -> Tensor:
    """Singular values ``(B, min(n, m))`` of ``(B, n, m)`` matrices, ascending or descending.

    From the eigenvalues of the Gram matrices, at half the cost; those of matrices whose squares would lose
    digits come from the matrices themselves. A Gram matrix whose diagonal spans too much is not tried: its
    spectrum spans no less.

    Args:
        products: ``(B, n, m)``.
        triangular: they are lower triangular.
    """
    gram = gram_matrices(products, triangular)
    sizes = gram.detach().diagonal(dim1=-2, dim2=-1)
    kept = (sizes.amin(dim=1) >= SQUARING_LOSS * sizes.amax(dim=1)).nonzero().flatten()
    squares = torch.linalg.eigvalsh(gram if len(kept) == len(gram) else gram[kept])
    shown = squares[:, 0] >= SQUARING_LOSS * squares[:, -1]
    if len(kept) == len(gram) and shown.all():
        return squares.sqrt()
    hidden = torch.ones(len(products), dtype=torch.bool, device=products.device)
    hidden[kept[shown]] = False
    values = torch.zeros_like(products[:, 0, : min(products.shape[1:])])
    values = values.index_put((kept[shown],), squares[shown][:, -values.shape[1] :].sqrt())
    return values.index_put((hidden,), torch.linalg.svdvals(products[hidden]))


def squared_euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances ``(P, Q)`` in float64, exactly 0 between equal rows, gradient 0 there."""
    direct = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x.double(), y.double(), compute_mode=direct).square()


def pack_symmetric(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    r"""Upper triangles ``(B, D (D + 1) / 2)``, off-diagonal entries times :math:`\sqrt 2`.

    The inner product of two packed matrices is the Frobenius product of the matrices, at half the cost.
    """
    dim = matrices.shape[-1]
    row, column = torch.triu_indices(dim, dim, device=matrices.device)
    weight = torch.ones(len(row), dtype=matrices.dtype, device=matrices.device)
    weight[row != column] = 2**0.5
    return (matrices[:, row, column] * weight).to(dtype)
