"""Checks, whitening, matrix products and a safe square root, for the distances between Gaussians."""

import torch
from torch import Tensor

from retrieval_geometry._check import (
    SHRINK,
    ImageError,
    ImageName,
    check_finite,
    check_floating,
    check_same_kind,
)
from retrieval_geometry._covariances import check_symmetric, cholesky_factor
from retrieval_geometry.image_models import Gaussian

BAND = 128
"""Rows of a triangular matrix that are multiplied at a time, with what lies above the diagonal left out."""

SQUARING_LOSS = 1e-12
"""Eigenvalues of a Gram matrix below this share of the largest say too little of the singular values."""

SCALES = (1e-130, 1e130)
"""Smallest and largest descriptors: fourth powers of these, and their ratios, are numbers of float64."""

CONDITION = 1e12
"""Largest condition of a correlation matrix: beyond it float64 has too few digits for an inverse."""


def check_gaussians(p: Gaussian, q: Gaussian) -> None:
    """Refuse Gaussians that cannot be compared.

    Raises:
        ValueError: not a :class:`Gaussian`, other dimensions, dtypes or devices, a mean that is NaN or
            infinite, or descriptors outside :data:`SCALES`.
    """
    for name, g in (("p", p), ("q", q)):
        if not isinstance(g, Gaussian):
            raise ValueError(f"{name} must be a Gaussian, got {type(g).__name__}; a mixture has collapse()")
        check_finite(check_floating(g.mean, f"the mean in {name}"), "the mean", image_namer(name, 0))
        check_scale(g.mean, g.cov.diagonal(dim1=-2, dim2=-1), image_namer(name, 0))
    if p.dim != q.dim:
        raise ValueError(f"p and q must have the same dimension, got {p.dim} and {q.dim}")
    check_same_kind([p.mean, q.mean], "p and q")


def image_namer(side: str, start: int) -> ImageName:
    """Name an image of a block by its index in the whole batch."""
    return ImageName(side, start)


@torch.no_grad()
def check_scale(means: Tensor, variances: Tensor, image_name: ImageName) -> None:
    """Refuse images whose squared differences would leave the numbers of float64.

    No image in float32 can. A constant image at the origin has no scale; beside a spread, a small mean is
    none.

    Args:
        means: ``(B, ...)``.
        variances: ``(B, ...)``.
        image_name: how the message calls the image at a position of the batch.

    Raises:
        ValueError: the means or the variances of an image (it is named) lie outside :data:`SCALES`.
    """
    if means.dtype != torch.float64 or not len(means):
        return
    low, high = SCALES
    mean, spread = means.abs().flatten(1).amax(dim=1), variances.flatten(1).amax(dim=1)
    wrong = (mean > high) | (spread > high**2) | ((spread > 0) & (spread < low**2))
    wrong |= (spread == 0) & (mean > 0) & (mean < low)
    wrong &= mean.isfinite() & spread.isfinite()  # others are named for what they are
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = (
            f" has means up to {float(mean[image]):.3g} and variances up to {float(spread[image]):.3g}: "
            "squared differences would overflow or vanish. Descriptors must lie between "
            f"{low:g} and {high:g} in size; rescale those of all images by one factor"
        )
        raise ImageError("", image, after, image_name)


def checked_covariance(g: Gaussian, side: str, start: int) -> Tensor:
    """The covariances in float64 and exactly symmetric.

    Raises:
        ValueError: an entry is NaN or infinite, or a matrix is not symmetric; the image is named.
    """
    check_finite(g.cov, "the covariance", image_namer(side, start))
    if not g.cov.requires_grad and torch.equal(g.cov, g.cov.mT):
        return g.cov.double()
    check_symmetric(g.cov, "the covariance", image_namer(side, start))
    cov = g.cov.double()
    return (cov + cov.mT) / 2


def checked_cholesky(g: Gaussian, side: str, start: int) -> tuple[Tensor, Tensor]:
    """The covariances and their Cholesky factors, both in float64.

    The factor belongs to a matrix within rounding of the covariance, channel by channel; the error of an
    inverse grows with the condition of the correlation matrix, which is estimated and limited.

    Raises:
        ValueError: a covariance is not positive definite, or its correlation matrix has a condition beyond
            :data:`CONDITION`; the image and the remedy are named.
    """
    cov = checked_covariance(g, side, start)
    lower = cholesky_factor(pad_identity(cov), "the covariance", g.dtype, image_namer(side, start))
    lower = lower if lower.shape[-1] == g.dim else lower[:, : g.dim, : g.dim].contiguous()
    condition = inverse_correlation_norm(lower, cov)
    wrong = ~(condition <= CONDITION)
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = (
            " is too near to a singular one: its correlation matrix has a condition of about "
            f"{float(condition[image]):.2g}, and beyond {CONDITION:g} an inverse or a logarithm of it has "
            f"too few digits: {SHRINK}"
        )
        raise ImageError("the covariance of ", image, after, image_namer(side, start))
    return cov, lower


@torch.no_grad()
def inverse_correlation_norm(lower: Tensor, cov: Tensor) -> Tensor:
    r"""Estimates ``(B,)`` of the largest eigenvalue of the inverse of the correlation matrix R, float64.

    Rounding in a Cholesky factorisation is as small in every channel as the channel (Demmel 1989): its effect
    on the inverse follows :math:`\| R^{-1} \|`, whatever the units, and a pivot need not show it. Here
    :math:`R^{-2}` is applied to four fixed vectors of normal draws: the estimate
    :math:`\| R^{-2} x \|^{1/2}` is right up to a small factor.
    """
    root = cov.diagonal(dim1=-2, dim2=-1).sqrt().unsqueeze(2)
    start = torch.randn(cov.shape[-1], 4, generator=torch.Generator().manual_seed(0), dtype=cov.dtype)
    x = start.to(cov.device).expand(len(cov), -1, -1)
    for _ in range(2):  # R^-1 = root (L L')^-1 root, twice: one step of the power method and its square
        x = torch.linalg.solve_triangular(lower, root * x, upper=False)
        x = root * torch.linalg.solve_triangular(lower.mT, x, upper=True)
    return torch.linalg.vector_norm(x, dim=1).amax(dim=1).sqrt()


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
    """Products of one lower triangular matrix with each of a batch of them, in bands, without most zeros."""
    if left.requires_grad or right.requires_grad:
        return product_with_each(left, right)
    products = torch.zeros_like(right)
    for start in range(0, len(left), BAND):
        rows, known = slice(start, start + BAND), slice(0, start + BAND)
        products[:, rows, known] = product_with_each(left[rows, known], right[:, known, known])
    return products


def gram_matrices(products: Tensor, triangular: bool = False) -> Tensor:
    """Gram matrices ``products @ products.mT`` ``(B, n, n)``, zero above the diagonal blocks.

    Where a gradient is asked for the matrices are whole.

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
    r"""A mean m and a matrix W that whiten an average image: :math:`W \bar\Sigma W^\top = I`.

    Divergences that do not change under a common affine map :math:`x \mapsto W (x - m)` are computed behind
    it: there, all covariances are near the identity, and a float32 product keeps its digits. The gradient
    takes it for a constant, because the divergence does not depend on it.

    No image owns the average: covariances are averaged over their largest variances, and the median of these
    variances is the scale; m is the median of the means, channel by channel.

    Returns:
        m ``(D,)`` and W ``(D, D)``, lower triangular, in float64.
    """
    total = torch.zeros(p.dim, p.dim, dtype=torch.float64, device=p.device)
    sizes = []
    for g in (p, q):
        largest = g.cov.diagonal(dim1=-2, dim2=-1).amax(dim=1).double()
        sizes.append(torch.where(largest > 0, largest, 1.0))
        # 64 at a time: no copy of all covariances in float64.
        for cov, size in zip(g.cov.split(64), sizes[-1].split(64), strict=True):
            total += torch.tensordot(1 / size, cov.double(), dims=1)
    size = torch.cat(sizes)
    pooled = (total + total.mT) * (size.median() / (2 * len(size)))
    mean = torch.cat([p.mean, q.mean]).double().median(dim=0).values
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
    # The inner where keeps the root away from 0, whose infinite slope would turn a zero gradient to NaN.
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def singular_values(products: Tensor, triangular: bool = False) -> Tensor:
    """Singular values ``(B, min(n, m))`` of ``(B, n, m)`` matrices, ascending or descending.

    Eigenvalues of the Gram matrices give them at half the cost; where squares would lose digits they come
    from the matrices themselves. A Gram matrix whose diagonal spans too much is not tried: its spectrum spans
    no less.

    Args:
        products: ``(B, n, m)``.
        triangular: they are lower triangular.
    """
    gram = gram_matrices(products, triangular)
    sizes = gram.detach().diagonal(dim1=-2, dim2=-1)
    smallest, largest = sizes.amin(dim=1), sizes.amax(dim=1)
    kept = (smallest >= SQUARING_LOSS * largest) & (largest > 1e-280) & largest.isfinite()
    kept = kept.nonzero().flatten()
    squares = torch.linalg.eigvalsh(gram if len(kept) == len(gram) else gram[kept])
    # eigvalsh is right to eps of the largest eigenvalue: 1e-12 leaves four digits of the smallest.
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
    weight[row != column] = 2**0.5  # each stands for its mirror image too
    return (matrices[:, row, column] * weight).to(dtype)
