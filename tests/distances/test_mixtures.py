"""Variational KL and mixture 2-Wasserstein distance against references, and the errata on mixtures."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from retrieval_geometry.distances import (
    _blocks,
    kl_divergence,
    mixture_wasserstein2_squared,
    monte_carlo_kl,
    symmetric_variational_kl,
    variational_kl,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import GaussianMixture, fit_mixture
from retrieval_geometry.papers.geometric.as_printed import cross_entropy_bound, cross_entropy_bound_as_printed
from tests.distances.common import DEVICES, DTYPES, TOLERANCE, mixtures, normal, source

DISTANCES = [variational_kl, symmetric_variational_kl, mixture_wasserstein2_squared]


def component_divergences(p: GaussianMixture, q: GaussianMixture, i: int, j: int) -> torch.Tensor:
    """D(a || b) for all components of two images, by torch.distributions."""

    def normals(m: GaussianMixture, k: int, axis: int) -> torch.distributions.Independent:
        mean, scale = m.means[k].unsqueeze(axis), m.variances[k].sqrt().unsqueeze(axis)
        return torch.distributions.Independent(torch.distributions.Normal(mean, scale), 1)

    return torch.distributions.kl_divergence(normals(p, i, 1), normals(q, j, 0))


def variational_reference(p: GaussianMixture, q: GaussianMixture) -> torch.Tensor:
    """[geometric] eq. 10, sum by sum."""
    values = torch.zeros(len(p), len(q), dtype=torch.float64)
    for i in range(len(p)):
        for j in range(len(q)):
            own, crossed = component_divergences(p, p, i, i), component_divergences(p, q, i, j)
            for a, weight in enumerate(p.weights[i]):
                numerator = sum(w * (-own[a, b]).exp() for b, w in enumerate(p.weights[i]))
                denominator = sum(w * (-crossed[a, b]).exp() for b, w in enumerate(q.weights[j]))
                values[i, j] += weight * (numerator / denominator).log()
    return values


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 3, 12])
def test_variational_kl_agrees_with_the_definition(dim: int, dtype: torch.dtype, device: str) -> None:
    p, q = mixtures(2, 4, dim, 1), mixtures(3, 5, dim, 2)
    forward, backward = variational_reference(p, q), variational_reference(q, p).mT
    left, right = p.to(device, dtype), q.to(device, dtype)
    rtol = TOLERANCE[dtype]
    found = variational_kl(left, right).cpu().double()
    torch.testing.assert_close(found, forward, rtol=rtol, atol=1e-2 * rtol)
    found = symmetric_variational_kl(left, right).cpu().double()
    torch.testing.assert_close(found, (forward + backward) / 2, rtol=rtol, atol=1e-2 * rtol)


def test_variational_kl_of_one_component_is_the_gaussian_kl() -> None:
    p, q = mixtures(3, 1, 5, 1), mixtures(4, 1, 5, 2)
    torch.testing.assert_close(variational_kl(p, q), kl_divergence(p.collapse(), q.collapse()))


def test_variational_kl_of_equal_mixtures_is_zero() -> None:
    p = mixtures(4, 6, 5, 1)
    torch.testing.assert_close(variational_kl(p, p).diagonal(), torch.zeros(4).double(), rtol=0, atol=1e-9)


def test_variational_kl_can_be_negative() -> None:
    """Erratum 0.3: in one dimension with overlapping components, about one draw in nine."""
    p, q = mixtures(200, 2, 1, 3, spread=1.0), mixtures(200, 2, 1, 4, spread=1.0)
    values = variational_kl(p, q).diagonal()
    assert 0.02 < float((values < -1e-9).double().mean()) < 0.5


def test_variational_kl_is_near_monte_carlo_for_separated_components() -> None:
    """Far apart, the approximation is exact up to overlaps; the estimate says how sure it is."""
    p, q = mixtures(2, 3, 4, 5, spread=30.0), mixtures(2, 3, 4, 6, spread=30.0)
    estimate = monte_carlo_kl(p, q, 20_000, source(0))
    assert ((variational_kl(p, q) - estimate.value).abs() < 5 * estimate.standard_error).all()


def test_monte_carlo_kl_is_within_its_error_of_the_gaussian_kl() -> None:
    p, q = mixtures(4, 1, 3, 7), mixtures(5, 1, 3, 8)
    estimate = monte_carlo_kl(p, q, 20_000, source(1))
    deviation = (estimate.value - kl_divergence(p.collapse(), q.collapse())) / estimate.standard_error
    assert deviation.abs().max() < 4.5
    assert 0.4 < float(deviation.std()) < 2


def test_float32_holds_with_near_singleton_components() -> None:
    """64 components on 169 descriptors: variances at the floor, divergences in the ten thousands."""
    x = normal(source(9), 4, 60, 40) * torch.logspace(0, -1, 40).double() + 5
    fitted = fit_mixture(x, n_components=16)
    p, q = fitted[:2], fitted[2:]
    for distance in (variational_kl, symmetric_variational_kl):
        found = distance(p.to(torch.float32), q.to(torch.float32)).double()
        torch.testing.assert_close(found, distance(p, q), rtol=1e-4, atol=0)


def monte_carlo_cross_entropy(p: GaussianMixture, q: GaussianMixture) -> tuple[float, float]:
    generator = source(10)
    component = torch.multinomial(p.weights[0], 4000, replacement=True, generator=generator)
    x = p.means[0, component] + p.variances[0, component].sqrt() * normal(generator, 4000, p.dim)
    values = q.log_prob(x.unsqueeze(0))
    return float(values.mean()), float(values.std()) / 4000**0.5


def test_erratum_the_printed_bound_is_violated_and_the_corrected_one_holds() -> None:
    """Erratum 0.2: eq. 9 with the weight of the wrong mixture is no lower bound on E[log q]."""
    p, q = mixtures(60, 3, 2, 11, spread=1.0), mixtures(60, 3, 2, 12, spread=1.0)
    corrected, printed = (f(p, q).diagonal() for f in (cross_entropy_bound, cross_entropy_bound_as_printed))
    truth = [monte_carlo_cross_entropy(p[i], q[i]) for i in range(60)]
    high = torch.tensor([value + 4 * error for value, error in truth]).double()
    assert (corrected <= high).all()
    assert (printed > high).sum() >= 3


def mixture_reference(p: GaussianMixture, q: GaussianMixture) -> torch.Tensor:
    """POT's transport between full-covariance components."""
    values = torch.zeros(len(p), len(q), dtype=torch.float64)
    for i in range(len(p)):
        for j in range(len(q)):
            parts = [
                (m.means[k], torch.diag_embed(m.variances[k]), m.weights[k]) for m, k in ((p, i), (q, j))
            ]
            (ma, ca, wa), (mb, cb, wb) = parts
            values[i, j] = ot.gmm.gmm_ot_loss(ma, mb, ca, cb, wa, wb)
    return values


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_mixture_wasserstein_agrees_with_pot(dtype: torch.dtype, device: str) -> None:
    p, q = mixtures(2, 4, 3, 1), mixtures(3, 5, 3, 2)
    found = mixture_wasserstein2_squared(p.to(device, dtype), q.to(device, dtype)).cpu().double()
    torch.testing.assert_close(found, mixture_reference(p, q), rtol=TOLERANCE[dtype], atol=0)


def test_mixture_wasserstein_is_a_metric_above_the_wasserstein_distance() -> None:
    """Delon and Desolneux 2020, propositions 5 and 6; one component: the Gaussian distance."""
    m = mixtures(8, 3, 2, 3)
    d = mixture_wasserstein2_squared(m, m).sqrt()
    torch.testing.assert_close(d, d.mT)
    assert (d.diagonal() < 1e-6).all()
    assert (d.unsqueeze(1) <= d.unsqueeze(2) + d.unsqueeze(0) + 1e-9).all()
    p, q = mixtures(3, 1, 4, 4), mixtures(2, 1, 4, 5)
    exact = wasserstein2_squared(p.collapse(), q.collapse())
    torch.testing.assert_close(mixture_wasserstein2_squared(p, q), exact)
    p, q = mixtures(2, 4, 1, 6), mixtures(2, 4, 1, 7)
    quantiles = (torch.arange(20_000).double() + 0.5) / 20_000
    for i in range(2):
        for j in range(2):
            a, b = (inverse_distribution(m[k], quantiles) for m, k in ((p, i), (q, j)))
            assert float((a - b).square().mean()) <= float(mixture_wasserstein2_squared(p[i], q[j])) + 1e-3


def inverse_distribution(m: GaussianMixture, levels: torch.Tensor) -> torch.Tensor:
    """Quantiles of a mixture in one dimension, by a table of its distribution function."""
    grid = torch.linspace(-20, 20, 40_001).double()
    normals = torch.distributions.Normal(m.means[0, :, 0], m.variances[0, :, 0].sqrt())
    table = normals.cdf(grid.unsqueeze(1)) @ m.weights[0]
    return torch.as_tensor(np.interp(levels.numpy(), table.numpy(), grid.numpy()))


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_right(distance: object) -> None:
    p, q = mixtures(1, 2, 2, 8), mixtures(2, 3, 2, 9)
    parts = [t.clone().requires_grad_() for m in (p, q) for t in (m.weights, m.means, m.variances)]

    def value(*parts: torch.Tensor) -> torch.Tensor:
        left = GaussianMixture(parts[0] / parts[0].sum(dim=1, keepdim=True), *parts[1:3])
        right = GaussianMixture(parts[3] / parts[3].sum(dim=1, keepdim=True), *parts[4:])
        return distance(left, right)  # type: ignore[operator]

    assert torch.autograd.gradcheck(value, parts)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_weight_of_zero_does_no_harm(distance: object) -> None:
    p, q = mixtures(1, 3, 2, 10), mixtures(1, 3, 2, 11)
    weights = torch.tensor([[0.4, 0.0, 0.6]]).double().requires_grad_()
    without = [0, 2]
    full = distance(GaussianMixture(weights, p.means, p.variances), q)  # type: ignore[operator]
    less = distance(  # type: ignore[operator]
        GaussianMixture(weights[:, without], p.means[:, without], p.variances[:, without]), q
    )
    torch.testing.assert_close(full, less)
    full.sum().backward()
    assert weights.grad is not None
    assert weights.grad.isfinite().all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_small_memory_budget_changes_nothing(distance: object, monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = mixtures(4, 3, 2, 1), mixtures(5, 3, 2, 2)
    whole = distance(p, q)  # type: ignore[operator]
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 1000)
    torch.testing.assert_close(distance(p, q), whole)  # type: ignore[operator]


@pytest.mark.parametrize("distance", [*DISTANCES, monte_carlo_kl])
def test_bad_input_is_refused(distance: object) -> None:
    p = mixtures(2, 3, 2, 1)
    with pytest.raises(ValueError, match="same dimension, got 2 and 3"):
        distance(p, mixtures(2, 3, 3, 1))  # type: ignore[operator]
    with pytest.raises(ValueError, match="q must be a GaussianMixture, got Gaussian"):
        distance(p, p.collapse())  # type: ignore[operator]
    with pytest.raises(ValueError, match="share one dtype"):
        distance(p, p.to(torch.float32))  # type: ignore[operator]


def test_costs_that_overflow_are_refused_and_never_zero() -> None:
    """POT's emd2 answers 0.0 with a warning to a NaN cost; such a cost must not reach it."""
    p = mixtures(1, 2, 2, 1)
    huge = GaussianMixture(p.weights, torch.full_like(p.means, 1e200), p.variances)
    with pytest.raises(ValueError, match="overflow"):
        mixture_wasserstein2_squared(huge, p)
    with pytest.warns(UserWarning, match="unbounded"):
        assert ot.emd2([0.5, 0.5], [0.5, 0.5], np.full((2, 2), np.nan)) == 0.0
