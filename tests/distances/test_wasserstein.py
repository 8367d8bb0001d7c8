"""2-Wasserstein distance at every rank: thin factors, singular covariances, wide matrices."""

from __future__ import annotations

import ot
import pytest
import torch

from retrieval_geometry.distances import wasserstein, wasserstein2, wasserstein2_squared
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.common import (
    DEVICES,
    DTYPES,
    TOLERANCE,
    all_pairs,
    gaussians,
    normal,
    source,
)
from tests.distances.common import wasserstein2_squared as reference


def thin(n: int, n_points: int, dim: int, seed: int) -> Gaussian:
    return fit_gaussian(normal(source(seed), n, n_points, dim) * torch.logspace(0, -1, dim).double())


def singular_reference(p: Gaussian, q: Gaussian) -> torch.Tensor:
    """Fidelity by singular values of products of the descriptors themselves, pair by pair."""
    rows = []
    for i in range(len(p)):
        row = []
        for j in range(len(q)):
            cross = torch.linalg.svdvals(p.factor[i].mT @ q.factor[j]).sum()
            spread = p.cov[i].trace() + q.cov[j].trace() - 2 * cross
            row.append((p.mean[i] - q.mean[j]).square().sum() + spread)
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_points", "dim"), [(1, 6), (2, 6), (10, 25), (13, 25), (25, 10), (300, 280)])
def test_factors_of_any_width(n_points: int, dim: int, dtype: torch.dtype, device: str) -> None:
    p, q = thin(2, n_points, dim, 1), thin(3, n_points, dim, 2)
    found = wasserstein2_squared(p.to(device, dtype), q.to(device, dtype)).cpu().double()
    torch.testing.assert_close(found, singular_reference(p, q), rtol=TOLERANCE[dtype], atol=1e-12)


@pytest.mark.parametrize("n_points", [3, 10, 40])
def test_a_factor_and_its_covariance_say_the_same(n_points: int) -> None:
    p, q = thin(2, n_points, 25, 1), thin(3, n_points, 25, 2)
    bare = (Gaussian(g.mean, g.cov) for g in (p, q))
    torch.testing.assert_close(wasserstein2_squared(*bare), wasserstein2_squared(p, q), rtol=1e-6, atol=0)


def test_a_thin_factor_against_a_full_covariance() -> None:
    p, q = thin(2, 8, 12, 1), gaussians(3, 12, 2)
    mixed = wasserstein2_squared(p, q)
    torch.testing.assert_close(mixed, wasserstein2_squared(q, p).mT)
    full = Gaussian(p.mean, p.cov + 1e-15 * torch.eye(12))
    torch.testing.assert_close(mixed, wasserstein2_squared(full, q), rtol=1e-5, atol=0)


def test_singular_and_regular_covariances_in_one_batch() -> None:
    regular = gaussians(3, 6, 3)
    cov = regular.cov.clone()
    factor = normal(source(4), 6, 2)
    cov[1] = factor @ factor.mT
    found = wasserstein2_squared(Gaussian(regular.mean, cov), regular)
    rows = [0, 2]
    torch.testing.assert_close(
        found[rows], all_pairs(reference, regular[rows], regular), rtol=1e-6, atol=1e-9
    )
    padded = torch.cat([factor, torch.zeros(6, 4).double()], dim=1).unsqueeze(0)
    one = Gaussian(regular.mean[1:2], padded @ padded.mT, padded)
    torch.testing.assert_close(found[1:2], wasserstein2_squared(one, regular), rtol=1e-6, atol=0)


def test_points_have_zero_covariance() -> None:
    """Between Diracs only the means count; from a Dirac, the trace is added."""
    p = Gaussian(normal(source(5), 3, 4), torch.zeros(3, 4, 4).double())
    q = gaussians(2, 4, 6)
    torch.testing.assert_close(wasserstein2_squared(p, p), torch.cdist(p.mean, p.mean).square())
    traces = q.cov.diagonal(dim1=1, dim2=2).sum(dim=1)
    torch.testing.assert_close(wasserstein2_squared(p, q), torch.cdist(p.mean, q.mean).square() + traces)


@pytest.mark.slow
def test_finite_where_pot_gives_nan() -> None:
    """169 descriptors in 512 dimensions: POT's matrix roots fail on the singular covariance."""
    generator = source(7)
    x = normal(generator, 2, 169, 512) * torch.logspace(0, -3, 512).double()
    g = fit_gaussian(x)
    found = wasserstein2_squared(g[:1], g[1:])
    mean, cov = g.mean.numpy(), g.cov.numpy()
    assert not ot.gaussian.bures_wasserstein_distance(mean[0], mean[1], cov[0], cov[1]) > 0
    torch.testing.assert_close(found, singular_reference(g[:1], g[1:]), rtol=1e-6, atol=0)
    half = g.to(torch.float32)
    torch.testing.assert_close(wasserstein2_squared(half[:1], half[1:]).double(), found, rtol=1e-5, atol=0)


def test_the_squared_gram_matrix_is_left_where_it_loses_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide factors go through a Gram matrix; small singular values drown there and are computed again."""
    generator = source(8)
    basis = torch.linalg.qr(normal(generator, 2, 40, 40)).Q
    spectra = torch.stack([torch.logspace(0, -13, 40), torch.logspace(-13, 0, 40)]).double()
    g = Gaussian(torch.zeros(2, 40).double(), torch.zeros(2, 40, 40).double())
    factor = basis * spectra.sqrt().unsqueeze(1)
    g = Gaussian(g.mean, factor @ factor.mT, factor)
    exact = wasserstein2_squared(g, g)
    monkeypatch.setattr(wasserstein, "NARROW", 4)
    torch.testing.assert_close(wasserstein2_squared(g, g), exact, rtol=1e-9, atol=1e-12)


def test_gradient_to_the_descriptors() -> None:
    """The way of a loss: descriptors to Gaussian to distance, below and above full rank."""
    for n_points, dim in ((3, 5), (7, 3)):
        generator = source(9)
        x, y = (normal(generator, 2, n_points, dim).requires_grad_() for _ in range(2))
        assert torch.autograd.gradcheck(
            lambda x, y: wasserstein2_squared(fit_gaussian(x), fit_gaussian(y)), (x, y)
        )


def test_gradient_at_identical_descriptors_is_zero() -> None:
    x = normal(source(10), 2, 4, 9)
    moved = x.clone().requires_grad_()
    wasserstein2(fit_gaussian(moved), fit_gaussian(x)).diagonal().sum().backward()
    assert moved.grad is not None
    assert moved.grad.isfinite().all()
    moved.grad = None
    wasserstein2_squared(fit_gaussian(moved), fit_gaussian(x)).diagonal().sum().backward()
    torch.testing.assert_close(moved.grad, torch.zeros_like(x), rtol=0, atol=1e-9)


def test_gradient_to_a_singular_covariance_is_finite() -> None:
    factor = normal(source(11), 2, 6, 2)
    cov = (factor @ factor.mT).requires_grad_()
    g = Gaussian(torch.zeros(2, 6).double(), cov)
    wasserstein2_squared(g, g).sum().backward()
    assert cov.grad is not None
    assert cov.grad.isfinite().all()


def test_gradient_goes_to_the_covariance_if_only_that_asks_for_it() -> None:
    g, other = thin(2, 20, 4, 12), gaussians(2, 4, 13)
    cov = g.cov.clone().requires_grad_()
    wasserstein2_squared(Gaussian(g.mean, cov, g.factor), other).sum().backward()
    bare = g.cov.clone().requires_grad_()
    wasserstein2_squared(Gaussian(g.mean, bare), other).sum().backward()
    torch.testing.assert_close(cov.grad, bare.grad)


def test_a_foreign_factor_is_refused() -> None:
    g = thin(3, 4, 6, 14)
    factor = g.factor.clone()
    factor[1] *= 2
    with pytest.raises(ValueError, match="factor of image 1 of q does not belong to its covariance"):
        wasserstein2(g, Gaussian(g.mean, g.cov, factor))
    factor[1] = torch.nan
    with pytest.raises(ValueError, match="factor of image 1 of q"):
        wasserstein2(g, Gaussian(g.mean, g.cov, factor))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_points", "dim"), [(4, 9), (9, 5), (20, 17), (30, 33)])
def test_equal_images_have_equal_distances_bit_by_bit(n_points: int, dim: int, dtype: torch.dtype) -> None:
    """Rounding in a batched product can depend on the position in the batch; ties would be lost."""
    g = thin(6, n_points, dim, 15).to(dtype)
    repeated = g[torch.tensor([0, 1, 2, 1, 3, 4, 1])]
    for other in (repeated, Gaussian(repeated.mean, repeated.cov)):
        d = wasserstein2(g[4:], other)
        assert torch.equal(d[:, 1], d[:, 3])
        assert torch.equal(d[:, 1], d[:, 6])
        assert torch.equal(wasserstein2(g[4:], other[3]), d[:, 3:4])
