"""Random models: of the promised kind, and the same for the same generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from retrieval_geometry.reporting.toys import random_gaussians, random_mixtures, turned_covariance


def test_the_long_axis_is_turned() -> None:
    cov = turned_covariance(math.pi / 2, 3.0, 1.0)
    assert_close(cov, torch.diag(torch.tensor([1.0, 9.0])), atol=1e-5, rtol=0)


def test_gaussians_have_full_rank() -> None:
    gaussians = random_gaussians(5, 4, torch.Generator().manual_seed(0))
    assert gaussians.mean.shape == (5, 4)
    assert (torch.linalg.eigvalsh(gaussians.cov) > 0).all()


def test_mixtures_are_densities() -> None:
    mixtures = random_mixtures(5, 2, torch.Generator().manual_seed(0), components=4)
    assert mixtures.means.shape == mixtures.variances.shape == (5, 4, 2)
    assert_close(mixtures.weights.sum(1), torch.ones(5))
    assert (mixtures.variances > 0).all()


@pytest.mark.parametrize(("draw", "part"), [(random_gaussians, "cov"), (random_mixtures, "means")])
def test_the_generator_decides(draw: Callable[..., object], part: str) -> None:
    first, again, other = (
        getattr(draw(3, 2, torch.Generator().manual_seed(seed)), part) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
