"""Checks of covariance matrices, which name the image."""

import torch
from torch import Tensor

from retrieval_geometry._check import IMAGE, SHRINK, ImageError, ImageName
from retrieval_geometry._tolerances import ASYMMETRY


def check_symmetric(matrices: Tensor, name: str = "cov", image_name: ImageName = IMAGE) -> Tensor:
    """Refuse ``(B, D, D)`` matrices that differ from their transposes by over 1e-4 of their largest entry.

    Raises:
        ImageError: a matrix is not symmetric.
    """
    values = matrices.detach()
    skew = (values - values.mT).abs().amax(dim=(-2, -1))
    wrong = skew > ASYMMETRY * values.abs().amax(dim=(-2, -1))
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = f" is not symmetric (by {float(skew[image]):.3g})"
        raise ImageError(f"{name} of ", image, after, image_name)
    return matrices


def cholesky_factor(
    cov: Tensor,
    name: str = "cov",
    precision: torch.dtype | None = None,
    image_name: ImageName = IMAGE,
) -> Tensor:
    """Cholesky factors ``(B, D, D)`` of positive definite covariances, or a refusal that names the image.

    A singular covariance can pass a bare factorisation by rounding alone: :func:`pivots_are_positive` judges.

    Args:
        cov: ``(B, D, D)`` symmetric matrices.
        name: what the message calls them.
        precision: the dtype in which ``cov`` was computed, where it has been widened since.
        image_name: how the message calls the image at a position of the batch.

    Raises:
        ImageError: a covariance is singular or indefinite; the remedy is named.
    """
    factor, info = torch.linalg.cholesky_ex(cov)
    wrong = (info != 0) | ~pivots_are_positive(factor, cov, precision or cov.dtype)
    if wrong.any():
        image = int(wrong.nonzero()[0])
        after = (
            " is not positive definite (singular or indefinite), and this distance needs an inverse or a "
            f"logarithm of it: {SHRINK}"
        )
        raise ImageError(f"{name} of ", image, after, image_name)
    return factor


def pivots_are_positive(factor: Tensor, cov: Tensor, precision: torch.dtype) -> Tensor:
    """Which Cholesky factors ``(B, D, D)`` are those of a positive definite matrix, beyond rounding.

    The i-th pivot over the i-th variance is 1 minus the share of that variance which the variables before it
    explain, whatever their units; a share within rounding of 1 means that the matrix is singular.

    Args:
        factor: lower triangular ``(B, D, D)``.
        cov: the covariances that were factorised.
        precision: the dtype in which ``cov`` was computed.

    Returns:
        ``(B,)``, boolean.
    """
    pivots, variances = (m.detach().diagonal(dim1=-2, dim2=-1) for m in (factor, cov))
    # Errors of a sum grow as the root of its length; small matrices keep a margin.
    rounding = max(16.0, cov.shape[-1] ** 0.5) * torch.finfo(precision).eps
    return (pivots.square() > rounding * variances).all(dim=-1)
