"""Images for the tests of distances, one tolerance table, and the definitions by name."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.image_models import Gaussian, GaussianMixture
from tests.definitions import REFERENCES, all_pairs, wasserstein2_squared

__all__ = ["REFERENCES", "all_pairs", "wasserstein2_squared"]

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Relative error allowed against a float64 reference."""

DTYPES = [torch.float32, torch.float64]
FULL_RANK = ["kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def source(seed: int) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Standard normal draws in float64."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gaussians(n: int, dim: int, seed: int = 0) -> Gaussian:
    """Images with full-rank covariances of condition 10 to 1,000, float64, without a factor."""
    generator = source(seed)
    factor = normal(generator, n, dim, 2 * dim) * torch.logspace(0, -1, dim, dtype=torch.float64)[:, None]
    return Gaussian(normal(generator, n, dim), factor @ factor.mT / (2 * dim))


def joined(*batches: Gaussian) -> Gaussian:
    """Several batches as one."""
    return Gaussian(torch.cat([g.mean for g in batches]), torch.cat([g.cov for g in batches]))


def mixtures(n: int, n_components: int, dim: int, seed: int = 0, spread: float = 2.0) -> GaussianMixture:
    """Mixtures with unequal weights, float64."""
    generator = source(seed)
    weights = torch.rand(n, n_components, generator=generator, dtype=torch.float64) + 0.1
    means = spread * normal(generator, n, n_components, dim)
    variances = 0.3 + torch.rand(n, n_components, dim, generator=generator, dtype=torch.float64)
    return GaussianMixture(weights / weights.sum(dim=1, keepdim=True), means, variances)


def measures(n_sets: int, n_points: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and unequal masses, float64."""
    generator = source(seed)
    masses = torch.rand(n_sets, n_points, generator=generator, dtype=torch.float64) + 0.1
    return normal(generator, n_sets, n_points, dim), masses / masses.sum(dim=1, keepdim=True)
