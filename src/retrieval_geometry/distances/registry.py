"""All distances by name."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from retrieval_geometry._check import check_choice
from retrieval_geometry.distances.controls import cosine_mean_distance, euclidean_mean_distance
from retrieval_geometry.distances.kl import kl_divergence, symmetric_kl
from retrieval_geometry.distances.mixture_wasserstein import mixture_wasserstein2_squared
from retrieval_geometry.distances.riemannian import (
    affine_invariant_distance,
    log_euclidean_distance,
    stein_divergence,
)
from retrieval_geometry.distances.sinkhorn import pairwise_sinkhorn_divergence
from retrieval_geometry.distances.variational_kl import symmetric_variational_kl, variational_kl
from retrieval_geometry.distances.wasserstein import wasserstein2, wasserstein2_squared

DISTANCES: dict[str, Callable[[Any, Any], Tensor]] = {
    "kl": kl_divergence,
    "symmetric_kl": symmetric_kl,
    "wasserstein2": wasserstein2,
    "wasserstein2_squared": wasserstein2_squared,
    "affine_invariant": affine_invariant_distance,
    "stein": stein_divergence,
    "log_euclidean": log_euclidean_distance,
    "euclidean_mean": euclidean_mean_distance,
    "cosine_mean": cosine_mean_distance,
    "variational_kl": variational_kl,
    "symmetric_variational_kl": symmetric_variational_kl,
    "mixture_wasserstein2_squared": mixture_wasserstein2_squared,
    "sinkhorn": pairwise_sinkhorn_divergence,
}
"""Each takes P images and Q images and returns ``(P, Q)``; smaller is nearer.

The two variational divergences and the mixture-Wasserstein distance compare
:class:`~retrieval_geometry.image_models.GaussianMixture`, ``sinkhorn`` the descriptors ``(P, n, d)``
themselves, all others :class:`~retrieval_geometry.image_models.Gaussian`. Used in chapters 3 and 4.
"""


def pairwise(name: str, p: Any, q: Any) -> Tensor:
    """Distance of every p from every q, by its name.

    Source: this package's own. Used in chapter 3.

    Args:
        name: a key of :data:`DISTANCES`.
        p: P images, as the distance wants them.
        q: Q images.

    Returns:
        ``(P, Q)``.

    Raises:
        ValueError: an unknown name; the message lists the known ones.

    Example:
        >>> pairwise("sinkhorn", torch.zeros(2, 3, 1), torch.ones(4, 3, 1)).shape
        torch.Size([2, 4])
    """
    return DISTANCES[check_choice(name, "name", DISTANCES)](p, q)
