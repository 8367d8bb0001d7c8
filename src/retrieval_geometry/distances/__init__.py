"""Distances and divergences between images as distributions: all pairs, ``(P, Q)``."""

from retrieval_geometry.distances.assignment import (
    exact_transport_cost,
    pairwise_exact_transport_cost,
)
from retrieval_geometry.distances.controls import (
    cosine_mean_distance,
    covariance_only,
    euclidean_mean_distance,
    mean_only,
)
from retrieval_geometry.distances.kl import kl_divergence, symmetric_kl
from retrieval_geometry.distances.mixture_wasserstein import mixture_wasserstein2_squared
from retrieval_geometry.distances.registry import DISTANCES, pairwise
from retrieval_geometry.distances.riemannian import (
    affine_invariant_distance,
    log_euclidean_distance,
    stein_divergence,
)
from retrieval_geometry.distances.search import GalleryIndex, Ranking, rank
from retrieval_geometry.distances.sinkhorn import pairwise_sinkhorn_divergence, sinkhorn_divergence
from retrieval_geometry.distances.variational_kl import (
    Estimate,
    monte_carlo_kl,
    symmetric_variational_kl,
    variational_kl,
)
from retrieval_geometry.distances.wasserstein import wasserstein2, wasserstein2_squared

__all__ = [
    "DISTANCES",
    "Estimate",
    "GalleryIndex",
    "Ranking",
    "affine_invariant_distance",
    "cosine_mean_distance",
    "covariance_only",
    "euclidean_mean_distance",
    "exact_transport_cost",
    "kl_divergence",
    "log_euclidean_distance",
    "mean_only",
    "mixture_wasserstein2_squared",
    "monte_carlo_kl",
    "pairwise",
    "pairwise_exact_transport_cost",
    "pairwise_sinkhorn_divergence",
    "rank",
    "sinkhorn_divergence",
    "stein_divergence",
    "symmetric_kl",
    "symmetric_variational_kl",
    "variational_kl",
    "wasserstein2",
    "wasserstein2_squared",
]
