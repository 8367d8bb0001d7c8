"""Controls that the paper lacks: distances of the means alone, and of the covariances alone."""

import torch
from torch import Tensor

from retrieval_geometry._check import ImageError
from retrieval_geometry.distances._gaussians import check_gaussians, image_namer, squared_euclidean
from retrieval_geometry.image_models import Gaussian


def euclidean_mean_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Euclidean distance of the means, :math:`\|\mu_p - \mu_q\|`; the covariances do not count.

    Source: this package's own control for [geometric] Table 1. Derived in chapter 3.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, units of the descriptors. A metric on the means.

    Raises:
        ValueError: ``p`` and ``q`` differ in dimension, dtype or device, or a mean is not finite.
    """
    check_gaussians(p, q)
    direct = "donot_use_mm_for_euclid_dist"  # a product would cancel between near means
    return torch.cdist(p.mean.double(), q.mean.double(), compute_mode=direct).to(p.dtype)


def cosine_mean_distance(p: Gaussian, q: Gaussian) -> Tensor:
    r"""One minus the cosine of the angle between the means.

    .. math:: 1 - \frac{\mu_p^\top \mu_q}{\|\mu_p\| \|\mu_q\|}
              = \frac12 \left\| \frac{\mu_p}{\|\mu_p\|} - \frac{\mu_q}{\|\mu_q\|} \right\|^2

    Source: this package's own control for [geometric] Table 1. Used in chapter 4.

    It is computed by the right-hand side, which keeps its digits at small angles. It is no metric.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in [0, 2].

    Raises:
        ValueError: a mean is zero, so that it has no direction (the image is named), or as
            :func:`euclidean_mean_distance`.
    """
    check_gaussians(p, q)
    units = []
    for side, g in (("p", p), ("q", q)):
        length = torch.linalg.vector_norm(g.mean.double(), dim=1, keepdim=True)
        if (length == 0).any():
            image = int((length.flatten() == 0).nonzero()[0])
            after = " is zero: it has no direction to compare"
            raise ImageError("the mean of ", image, after, image_namer(side, 0))
        units.append(g.mean.double() / length)
    return (squared_euclidean(*units) / 2).to(p.dtype)


def covariance_only(g: Gaussian) -> Gaussian:
    """Covariances ``(B, D, D)`` and factors moved to the origin: distances of them compare shapes only.

    Source: this package's own control for [geometric] Table 1. Derived in chapter 3.

    Raises:
        ValueError: not a :class:`Gaussian`.
    """
    _check_gaussian(g)
    return Gaussian(torch.zeros_like(g.mean), g.cov, g.factor)


def mean_only(g: Gaussian) -> Gaussian:
    """Means ``(B, D)`` with the identity as covariance: distances of them compare means only.

    Source: this package's own control for [geometric] Table 1. Used in no chapter.

    The symmetric KL of these images is half the squared Euclidean distance of the means, and the squared
    2-Wasserstein distance is all of it.

    Raises:
        ValueError: not a :class:`Gaussian`.
    """
    _check_gaussian(g)
    return Gaussian(g.mean, torch.eye(g.dim, dtype=g.dtype, device=g.device).repeat(len(g), 1, 1))


def _check_gaussian(g: Gaussian) -> None:
    if not isinstance(g, Gaussian):
        raise ValueError(f"g must be a Gaussian, got {type(g).__name__}; a mixture has collapse()")
