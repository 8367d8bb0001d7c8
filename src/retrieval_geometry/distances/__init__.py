"""Distances and divergences between images as distributions: all pairs, ``(P, Q)``."""

from retrieval_geometry.distances.controls import (
    cosine_mean_distance,
    covariance_only,
    euclidean_mean_distance,
    mean_only,
)
from retrieval_geometry.distances.kl import kl_divergence, symmetric_kl
from retrieval_geometry.distances.riemannian import (
    affine_invariant_distance,
    log_euclidean_distance,
    stein_divergence,
)
from retrieval_geometry.distances.wasserstein import wasserstein2_squared

__all__ = [
    "affine_invariant_distance",
    "cosine_mean_distance",
    "covariance_only",
    "euclidean_mean_distance",
    "kl_divergence",
    "log_euclidean_distance",
    "mean_only",
    "stein_divergence",
    "symmetric_kl",
    "wasserstein2_squared",
]
