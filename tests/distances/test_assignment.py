"""Exact transport by assignment: against the network simplex and all permutations, and its gradient."""

from __future__ import annotations

import itertools

import ot
import pytest
import torch

from retrieval_geometry.distances import (
    exact_transport_cost,
    pairwise_exact_transport_cost,
    sinkhorn_divergence,
)
from tests.distances.common import normal, source


@pytest.mark.parametrize("p", [1, 2])
def test_is_the_best_permutation(p: int) -> None:
    x, y = normal(source(1), 2, 4, 3), normal(source(2), 2, 4, 3)
    cost = torch.cdist(x, y).pow(p)
    best = [
        min(sum(c[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(4))) / 4
        for c in cost
    ]
    torch.testing.assert_close(exact_transport_cost(x, y, p), torch.stack(best))


@pytest.mark.parametrize("p", [1, 2])
def test_agrees_with_the_network_simplex(p: int) -> None:
    x, y = normal(source(3), 3, 20, 5), normal(source(4), 3, 20, 5)
    masses = [1 / 20] * 20
    expected = [float(ot.emd2(masses, masses, cost)) for cost in torch.cdist(x, y).pow(p).numpy()]
    torch.testing.assert_close(exact_transport_cost(x, y, p), torch.tensor(expected).double())


def test_is_the_limit_of_the_sinkhorn_divergence() -> None:
    x, y = normal(source(5), 3, 6, 2), normal(source(6), 3, 6, 2)
    gaps = [
        float((sinkhorn_divergence(x, y, epsilon=e) - exact_transport_cost(x, y)).abs().max())
        for e in (0.3, 0.03, 0.003)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


@pytest.mark.parametrize("p", [1, 2])
def test_gradients_are_right(p: int) -> None:
    x = normal(source(7), 3, 4, 2).requires_grad_()
    y = normal(source(8), 3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: exact_transport_cost(x, y, p), (x, y))
    assert torch.autograd.gradcheck(lambda x: pairwise_exact_transport_cost(x, x, p), x)


def test_all_pairs_agree_with_pairs() -> None:
    x, y = normal(source(9), 4, 5, 3), normal(source(10), 3, 5, 3)
    found = pairwise_exact_transport_cost(x, y)
    expected = torch.stack([exact_transport_cost(one.expand(3, -1, -1), y) for one in x])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        pairwise_exact_transport_cost(x, x), pairwise_exact_transport_cost(x, x.clone())
    )
    assert pairwise_exact_transport_cost(x[:0], y).shape == (0, 3)


def test_coinciding_points_have_finite_gradients() -> None:
    x = normal(source(11), 2, 4, 3).requires_grad_()
    exact_transport_cost(x, x.detach()).sum().backward()
    torch.testing.assert_close(x.grad, torch.zeros_like(x))


def test_bad_input_is_refused() -> None:
    x = normal(source(12), 2, 4, 3)
    for arguments, message in [
        ((x, x[:, :3]), "sets of one size, got 4 and 3 points; sinkhorn_divergence"),
        ((x, x[:1]), "same number of sets, got 2 and 1; pairwise_exact_transport_cost"),
        ((x, x, 3), "p must be one of 1, 2; got 3"),
        ((x, x * torch.nan), "y of image 0 has a NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            exact_transport_cost(*arguments)
