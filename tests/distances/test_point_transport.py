"""Costs and pulls of points by products of matrices, as on a GPU, are those of the compiled loops."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.distances._point_transport import (
    _add_pulls,
    add_pulls_by_products,
    pair_costs,
    pair_costs_by_products,
)

from .common import DTYPES, normal, source

LEFT, RIGHT = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 1, 0])


def sets(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Three sets of five points and two of six, far from the origin; one point is in both."""
    x, y = 3 + normal(source(1), 3, 5, 2), 3 + normal(source(2), 2, 6, 2)
    y[0, 0] = x[0, 0]
    return x.to(dtype), y.to(dtype)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_costs(p: int, dtype: torch.dtype) -> None:
    x, y = sets(dtype)
    found = pair_costs_by_products(x, y, LEFT, RIGHT, p)
    torch.testing.assert_close(found, pair_costs(x, y, LEFT, RIGHT, p, symmetric=False), rtol=1e-6, atol=0)
    assert found[1, 0, 0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_pulls(dtype: torch.dtype) -> None:
    x, y = sets(dtype)
    weights, grad = normal(source(3), 4, 5, 6).to(dtype), normal(source(4), 4)
    found, expected = (torch.full_like(x, 0.5) for _ in range(2))  # what is there is added to
    add_pulls_by_products(x, y, LEFT, RIGHT, weights, grad, found)
    _add_pulls(x, y, LEFT, RIGHT, weights, grad, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, torch.full_like(x, 0.5))
