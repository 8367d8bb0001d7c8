"""Images for the tests of distances, plain float64 references for them, and one tolerance table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray

from retrieval_geometry.image_models import Gaussian, GaussianMixture

Array = NDArray[np.float64]

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


def kl(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    shift = mb - ma
    volume = np.linalg.slogdet(sb)[1] - np.linalg.slogdet(sa)[1]
    quadratic = np.trace(np.linalg.solve(sb, sa)) + shift @ np.linalg.solve(sb, shift)
    return float(volume - len(ma) + quadratic) / 2


def wasserstein2_squared(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    root = scipy.linalg.sqrtm(sa)
    cross = scipy.linalg.sqrtm(root @ sb @ root)
    return float(np.sum((ma - mb) ** 2) + np.trace(sa + sb - 2 * cross.real))


def affine_invariant(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    return float(np.linalg.norm(np.log(scipy.linalg.eigh(sb, sa, eigvals_only=True))))


def stein(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    middle, a, b = (np.linalg.slogdet(s)[1] for s in ((sa + sb) / 2, sa, sb))
    return float(middle - (a + b) / 2)


def log_euclidean(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    return float(np.linalg.norm(symmetric_log(sa) - symmetric_log(sb)))


def symmetric_log(s: Array) -> Array:
    values, vectors = np.linalg.eigh(s)
    return (vectors * np.log(values)) @ vectors.T


def cosine(ma: Array, sa: Array, mb: Array, sb: Array) -> float:
    return float(1 - ma @ mb / np.linalg.norm(ma) / np.linalg.norm(mb))


REFERENCES: dict[str, Callable[[Array, Array, Array, Array], float]] = {
    "kl": kl,
    "symmetric_kl": lambda ma, sa, mb, sb: (kl(ma, sa, mb, sb) + kl(mb, sb, ma, sa)) / 2,
    "wasserstein2": lambda *pair: wasserstein2_squared(*pair) ** 0.5,
    "wasserstein2_squared": wasserstein2_squared,
    "affine_invariant": affine_invariant,
    "stein": stein,
    "log_euclidean": log_euclidean,
    "euclidean_mean": lambda ma, sa, mb, sb: float(np.linalg.norm(ma - mb)),
    "cosine_mean": cosine,
}
"""One pair at a time, from the definition, with numpy and scipy."""


def all_pairs(
    reference: Callable[[Array, Array, Array, Array], float], p: Gaussian, q: Gaussian
) -> torch.Tensor:
    """The reference for every pair, float64."""
    left, right = ([(m.numpy(), s.numpy()) for m, s in zip(g.mean, g.cov, strict=True)] for g in (p, q))
    return torch.tensor([[reference(*a, *b) for b in right] for a in left], dtype=torch.float64)
