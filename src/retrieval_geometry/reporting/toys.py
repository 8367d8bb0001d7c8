"""Small random models that several chapters ask the same questions of.

Numbers have torch's default dtype, and follow from the generator alone.
"""

import math

import torch

from retrieval_geometry.image_models import Gaussian, GaussianMixture


def turned_covariance(angle: float, wide: float, narrow: float) -> torch.Tensor:
    """The covariance (2, 2) with two standard deviations, its long axis turned by ``angle`` (radians)."""
    c, s = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[c, -s], [s, c]])
    return rotation @ torch.diag(torch.tensor([wide, narrow]) ** 2) @ rotation.mT


def random_gaussians(n: int, dim: int, generator: torch.Generator) -> Gaussian:
    """``n`` Gaussians of full rank in ``dim`` dimensions: normal means, Wishart covariances of any size."""
    mean = torch.randn(n, dim, generator=generator)
    factor = torch.randn(n, dim, 2 * dim, generator=generator)
    # Log-normal sizes: a distance that only works at one scale is found out.
    size = torch.randn(n, 1, 1, generator=generator).exp() / (2 * dim)
    return Gaussian(mean, size * factor @ factor.mT)


def random_mixtures(n: int, dim: int, generator: torch.Generator, components: int = 3) -> GaussianMixture:
    """``n`` mixtures of diagonal components: uniform weights on the simplex, log-normal variances."""
    # Exponential draws over their sum are uniform on the simplex (Devroye 1986, section V.2).
    weights = -torch.rand(n, components, generator=generator).log()
    weights = weights / weights.sum(1, keepdim=True)
    means = torch.randn(n, components, dim, generator=generator) / 2
    variances = torch.randn(n, components, dim, generator=generator).exp()
    return GaussianMixture(weights, means, variances)
