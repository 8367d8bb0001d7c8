"""The statistics network: the divergence it estimates, and where it changes sign."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from retrieval_geometry.losses import StatisticsNetwork, estimate_divergence
from retrieval_geometry.losses.statistics_network import (
    divergence_bound,
    find_beta,
    negative_score,
    positive_score,
)
from retrieval_geometry.papers.rankmi.as_printed import jensen_shannon, optimal_bound

GRID = torch.linspace(-12, 16, 20_001, dtype=torch.float64)
STEP = 28 / 20_000


def density(mean: float) -> Tensor:
    return torch.exp(-(GRID - mean).square() / 2) / math.sqrt(2 * math.pi)


def test_the_network_is_that_of_the_paper() -> None:
    network = StatisticsNetwork()
    linear = [layer for layer in network.layers if isinstance(layer, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in linear] == [(128, 1), (128, 128), (128, 128), (1, 128)]
    assert all(layer.negative_slope == 0.1 for layer in network.layers if isinstance(layer, nn.LeakyReLU))
    bound = math.sqrt(6 / 256)  # Xavier, uniform
    assert 0.99 * bound < float(linear[1].weight.detach().abs().max()) <= bound
    for layer in linear:
        nn.init.zeros_(layer.weight)
    d = torch.rand(3, 2, dtype=torch.float64)
    assert torch.equal(network(d), -d)  # the residual


def test_scores_are_those_of_the_paper_and_survive_large_values() -> None:
    v = torch.linspace(-5, 5, 11, dtype=torch.float64)
    t = math.log(2) - torch.log(1 + torch.exp(-v))
    torch.testing.assert_close(positive_score(v), t)
    torch.testing.assert_close(negative_score(v), torch.log(2 - torch.exp(t)))
    extreme = torch.tensor([-1e4, 1e4], requires_grad=True)
    (positive_score(extreme) + negative_score(extreme)).sum().backward()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_estimates_twice_the_divergence_of_two_gaussians(shift: float) -> None:
    """Erratum 3.2; the reference is numerical quadrature."""
    generator = torch.Generator().manual_seed(1)
    positive, negative = (torch.randn(6000, generator=generator) + mean for mean in (0, shift))
    twice = 2 * float(jensen_shannon(density(0), density(shift), STEP))
    found = estimate_divergence(positive, negative)
    assert found.value == pytest.approx(twice, abs=0.04)
    with torch.no_grad():
        scores = positive_score(v := found.network(GRID)), negative_score(v)
    exact = float((density(0) * scores[0] + density(shift) * scores[1]).sum() * STEP)
    assert twice / 2 < exact < twice  # a member of the family: below 2 JSD, and above JSD
    assert twice == pytest.approx(float(optimal_bound(density(0), density(shift), STEP)))
    # The densities of equal variance cross half way.
    assert find_beta(found.network, 0.0, -1.0, 5.0) == pytest.approx(shift / 2, abs=0.25)


def test_equal_samples_have_no_divergence_and_the_estimate_is_reproducible() -> None:
    sample = torch.randn(2000, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(5)
    first = estimate_divergence(sample, sample.flip(0), steps=50)
    drawn = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(()))  # the caller's random state is left alone
    assert abs(first.value) < 0.02
    assert first.value == estimate_divergence(sample, sample.flip(0), steps=50).value


@pytest.mark.parametrize(
    ("function", "start", "expected"),
    [
        (lambda d: 0.7 - d, 1.0, 0.7),
        (lambda d: 0.5 - d**3, 1.0, 0.5 ** (1 / 3)),
        (lambda d: torch.tanh(20 * (0.3 - d)), 1.9, 0.3),  # Newton leaves the interval
        (lambda d: (d - 0.5) * (d - 1.5) * (d - 1), 0.4, 1.0),  # falls through zero only at 1
        (lambda d: torch.sin(3 * math.pi * d), 1.9, 5 / 3),  # the nearest of two crossings
        (lambda d: 1 + 0 * d, 1.0, 2.0),  # no crossing, all like matches
        (lambda d: -1 + 0 * d, 1.0, 0.0),
        (lambda d: -torch.sign(d - 1) * torch.sqrt(torch.abs(d - 1)), 0.5, 1.0),  # Newton swings for ever
    ],
)
def test_beta_is_where_v_falls_through_zero(function: object, start: float, expected: float) -> None:
    assert find_beta(function, start, 0.0, 2.0) == pytest.approx(expected, abs=1e-5)


def test_beta_of_a_network_is_a_root() -> None:
    network = StatisticsNetwork().double()
    with torch.no_grad():
        network.layers[-1].bias.fill_(0.8)
    beta = find_beta(network, 1.0, 0.0, 2.0)
    assert abs(float(network(torch.tensor([beta], dtype=torch.float64)).detach())) < 1e-6


def test_bad_input_is_refused() -> None:
    x = torch.rand(10)
    with pytest.raises(ValueError, match="positive of image 2 has a NaN"):
        estimate_divergence(torch.tensor([0.0, 1.0, torch.nan]), x)
    with pytest.raises(ValueError, match="number of negative samples"):
        estimate_divergence(x, x[:1])
    with pytest.raises(ValueError, match="steps"):
        estimate_divergence(x, x, steps=0)
    with pytest.raises(ValueError, match="learning_rate"):
        estimate_divergence(x, x, learning_rate=0)
    with pytest.raises(ValueError, match="hidden"):
        StatisticsNetwork(hidden=0)
    assert divergence_bound(x, x).isfinite()
