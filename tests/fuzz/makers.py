"""Good arguments from a seed: small, of both dtypes, the same dtype for one seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from retrieval_geometry.datasets import ImageSet
from retrieval_geometry.features import EmbeddingNetwork, load_embedding_network
from retrieval_geometry.image_models import Gaussian, GaussianMixture

Maker = Callable[[int], Any]

N_IMAGES, N_POINTS, DIM = 4, 7, 3


def generator(seed: int, other: int = 0) -> torch.Generator:
    """A seeded generator; ``other`` tells apart the arguments of one call."""
    return torch.Generator().manual_seed(1000 * other + seed)


def dtype_of(seed: int) -> torch.dtype:
    """Every second seed means float32."""
    return torch.float32 if seed % 2 else torch.float64


def normal(*shape: int, other: int = 0) -> Maker:
    """Standard normal draws."""

    def make(seed: int) -> Tensor:
        drawn = torch.randn(*shape, generator=generator(seed, other), dtype=torch.float64)
        return drawn.to(dtype_of(seed))

    return make


def single(*shape: int, other: int = 0) -> Maker:
    """Numbers from 0 to 1 in float32, such as pixels."""
    return lambda seed: torch.rand(*shape, generator=generator(seed, other))


def uniform(*shape: int, other: int = 0) -> Maker:
    """Numbers from 0 to 1."""

    def make(seed: int) -> Tensor:
        drawn = torch.rand(*shape, generator=generator(seed, other), dtype=torch.float64)
        return drawn.to(dtype_of(seed))

    return make


def masses(n: int, other: int = 0) -> Maker:
    """Positive numbers that sum to one."""
    return lambda seed: (lambda m: m / m.sum())(uniform(n, other=other)(seed) + 0.1)


def gaussians(other: int = 0) -> Maker:
    """Images as Gaussians; every third seed gives them a thin factor and so a singular covariance."""

    def make(seed: int) -> Gaussian:
        columns = 2 if seed % 3 == 2 else 2 * DIM
        factor = normal(N_IMAGES, DIM, columns, other=other)(seed)
        mean = normal(N_IMAGES, DIM, other=other + 50)(seed)
        return Gaussian(mean, factor @ factor.mT, factor if seed % 3 == 2 else None)

    return make


def mixtures(other: int = 0) -> Maker:
    """Images as mixtures."""

    def make(seed: int) -> GaussianMixture:
        weights = uniform(N_IMAGES, 2, other=other)(seed) + 0.1
        variances = 0.3 + uniform(N_IMAGES, 2, DIM, other=other + 1)(seed)
        means = normal(N_IMAGES, 2, DIM, other=other + 2)(seed)
        return GaussianMixture(weights / weights.sum(dim=1, keepdim=True), means, variances)

    return make


def labels(n: int, classes: int = 3) -> Maker:
    """Labels of n images, each class about as often."""
    return lambda seed: (torch.arange(n) % classes)[torch.randperm(n, generator=generator(seed))]


def always(value: Any) -> Maker:
    """The same value for each seed."""
    return lambda seed: value


def one_of(*values: Any) -> Maker:
    """One of several values."""
    return lambda seed: values[seed % len(values)]


def images(seed: int) -> ImageSet:
    """Twelve images of 32 x 32 pixels in three classes."""
    drawn = torch.randint(0, 256, (12, 3, 32, 32), generator=generator(seed), dtype=torch.uint8)
    pixels = {f"{i % 3}/{i}": drawn[i] for i in range(12)}
    classes = ("a", "b", "c")
    return ImageSet("toy", torch.arange(12) % 3, classes, tuple(pixels), "0", pixels.__getitem__)


@cache
def network() -> EmbeddingNetwork:
    """An untrained network, the same for each draw."""
    return load_embedding_network(dim=4)
