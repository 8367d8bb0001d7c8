"""Every distance between Gaussians against its definition, in both precisions and on every device."""

from __future__ import annotations

import pytest
import torch

from retrieval_geometry.distances import DISTANCES, _blocks, covariance_only, mean_only, pairwise
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.common import (
    DEVICES,
    DTYPES,
    REFERENCES,
    TOLERANCE,
    all_pairs,
    gaussians,
    normal,
    source,
)

NEEDS_FULL_RANK = ["kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 2, 7, 40])
@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_the_definition(name: str, dim: int, dtype: torch.dtype, device: str) -> None:
    p, q = gaussians(3, dim, 1), gaussians(4, dim, 2)
    expected = all_pairs(REFERENCES[name], p, q)
    found = pairwise(name, p.to(device, dtype), q.to(device, dtype))
    assert found.shape == (3, 4)
    assert found.dtype == dtype
    assert found.device.type == device
    rtol = TOLERANCE[dtype]
    torch.testing.assert_close(found.cpu().double(), expected, rtol=rtol, atol=1e-2 * rtol)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_small_memory_budget_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = gaussians(5, 6, 1), gaussians(7, 6, 2)
    whole = pairwise(name, p, q)
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 4000)
    torch.testing.assert_close(pairwise(name, p, q), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_an_empty_side_gives_an_empty_matrix(name: str) -> None:
    g = gaussians(3, 2).to(torch.float32)
    assert pairwise(name, g[:0], g).shape == (0, 3)
    assert pairwise(name, g, g[:0]).shape == (3, 0)
    assert pairwise(name, g[:0], g).dtype == torch.float32


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_extreme_units_keep_the_digits(name: str, scale: float) -> None:
    g = gaussians(5, 6, 3)
    p, q = (Gaussian(scale * h.mean, scale**2 * h.cov) for h in (g[:2], g[2:]))
    expected = all_pairs(REFERENCES[name], p, q)
    torch.testing.assert_close(pairwise(name, p, q), expected, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in REFERENCES if name != "cosine_mean"])
def test_ill_conditioned_covariances_in_float32(name: str, dtype: torch.dtype) -> None:
    """Condition 1e5, as after a small shrinkage: float32 inputs must not cost more than their rounding."""
    generator = source(4)
    basis = torch.linalg.qr(normal(generator, 4, 30, 30)).Q
    spectra = torch.logspace(0, -5, 30, dtype=torch.float64) * normal(generator, 4, 30).exp()
    exact = Gaussian(normal(generator, 4, 30), (basis * spectra.unsqueeze(1)) @ basis.mT)
    rounded = exact.to(dtype)
    seen = rounded.to(torch.float64)
    seen = Gaussian(seen.mean, (seen.cov + seen.cov.mT) / 2)
    expected = all_pairs(REFERENCES[name], seen[:2], seen[2:])
    found = pairwise(name, rounded[:2], rounded[2:]).double()
    torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=0.0)


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_are_right(name: str) -> None:
    g = gaussians(4, 3, 5)
    parts = [part.clone().requires_grad_() for h in (g[:2], g[2:]) for part in (h.mean, h.cov)]

    def distance(*parts: torch.Tensor) -> torch.Tensor:
        mean_p, cov_p, mean_q, cov_q = parts
        return pairwise(
            name, Gaussian(mean_p, (cov_p + cov_p.mT) / 2), Gaussian(mean_q, (cov_q + cov_q.mT) / 2)
        )

    assert torch.autograd.gradcheck(distance, parts)


@pytest.mark.parametrize("name", ["kl", "symmetric_kl", "wasserstein2_squared", "stein", "cosine_mean"])
def test_gradients_at_identical_images_are_zero(name: str) -> None:
    """These are smooth at their minimum."""
    g = gaussians(3, 4, 6)
    mean, cov = g.mean.clone().requires_grad_(), g.cov.clone().requires_grad_()
    pairwise(name, Gaussian(mean, cov), g).diagonal().sum().backward()
    for part in (mean, cov):
        grad = torch.zeros_like(part) if part.grad is None else part.grad
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_at_identical_images_are_finite(name: str) -> None:
    """Equal covariances with repeated eigenvalues: where roots and eigenvectors give NaN."""
    g = Gaussian(torch.ones(2, 3).double(), torch.eye(3).double().repeat(2, 1, 1))
    mean, cov = g.mean.clone().requires_grad_(), g.cov.clone().requires_grad_()
    pairwise(name, Gaussian(mean, cov), Gaussian(mean, cov)).sum().backward()
    assert all(part.grad is None or part.grad.isfinite().all() for part in (mean, cov))


@pytest.mark.parametrize("name", ["wasserstein2_squared", "affine_invariant", "stein", "log_euclidean"])
def test_gradients_at_repeated_eigenvalues_are_right(name: str) -> None:
    """Multiples of the identity against a general covariance, where eigenvectors are arbitrary."""
    q = covariance_only(gaussians(1, 3, 7))
    cov = torch.eye(3).double().unsqueeze(0).requires_grad_()

    def distance(cov: torch.Tensor) -> torch.Tensor:
        return pairwise(name, Gaussian(torch.zeros(1, 3).double(), (cov + cov.mT) / 2), q)

    assert torch.autograd.gradcheck(distance, cov)


@pytest.mark.parametrize("side", ["p", "q"])
@pytest.mark.parametrize("name", NEEDS_FULL_RANK)
def test_a_singular_covariance_is_refused_with_image_and_remedy(name: str, side: str) -> None:
    good = gaussians(6, 5, 8)
    for kind in ("a constant channel", "two equal channels", "fewer descriptors than dimensions"):
        cov = good.cov.clone()
        if kind == "a constant channel":
            cov[4, 2], cov[4, :, 2] = 0.0, 0.0
        elif kind == "two equal channels":
            cov[4, 2] = cov[4, 1]
            cov[4, :, 2] = cov[4, :, 1]
        else:
            factor = normal(source(9), 5, 3)
            cov[4] = factor @ factor.mT
        bad = Gaussian(good.mean, cov)
        pair = (bad, good) if side == "p" else (good, bad)
        with pytest.raises(ValueError, match=rf"image 4 of {side} .*shrink"):
            pairwise(name, *pair)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NEEDS_FULL_RANK)
def test_shrinkage_is_a_remedy(name: str, dtype: torch.dtype) -> None:
    g = fit_gaussian(normal(source(10), 5, 12, 30).to(dtype), shrinkage=0.1)
    assert pairwise(name, g, g).isfinite().all()


def test_the_image_is_named_beyond_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 1)
    g = gaussians(6, 3)
    cov = g.cov.clone()
    cov[5] = 0.0
    for name in NEEDS_FULL_RANK:
        with pytest.raises(ValueError, match="image 5 of q"):
            pairwise(name, g[:2], Gaussian(g.mean, cov))


@pytest.mark.parametrize("name", REFERENCES)
def test_other_bad_input_is_refused(name: str) -> None:
    g = gaussians(3, 3)
    with pytest.raises(ValueError, match="same dimension, got 3 and 4"):
        pairwise(name, g, gaussians(3, 4))
    with pytest.raises(ValueError, match="share one dtype"):
        pairwise(name, g, g.to(torch.float32))
    with pytest.raises(ValueError, match="q must be a Gaussian, got Tensor"):
        pairwise(name, g, g.mean)
    mean = g.mean.clone()
    mean[1, 0] = torch.nan
    with pytest.raises(ValueError, match="mean of image 1 of p has a NaN"):
        pairwise(name, Gaussian(mean, g.cov), g)


@pytest.mark.parametrize("name", [*NEEDS_FULL_RANK, "wasserstein2"])
def test_bad_covariances_are_refused(name: str) -> None:
    g = gaussians(3, 3)
    cov = g.cov.clone()
    cov[2, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="covariance of image 2 of q has a NaN or infinite"):
        pairwise(name, g, Gaussian(g.mean, cov))
    cov = g.cov.clone()
    cov[1, 0, 1] += 1
    with pytest.raises(ValueError, match="covariance of image 1 of p is not symmetric"):
        pairwise(name, Gaussian(g.mean, cov), g)
    with pytest.raises(ValueError, match="image 0 of p"):
        pairwise(name, Gaussian(g.mean, g.cov - 5 * torch.eye(3)), g)


def test_the_registry_lists_what_it_knows() -> None:
    with pytest.raises(ValueError, match=r"kl, symmetric_kl, .*sinkhorn; got 'mahalanobis'"):
        pairwise("mahalanobis", None, None)
    assert all(callable(distance) for distance in DISTANCES.values())


def test_controls_see_one_part_only() -> None:
    p, q = gaussians(2, 4, 1), gaussians(3, 4, 2)
    shifted = Gaussian(p.mean + 1, p.cov)
    for name in ("symmetric_kl", "wasserstein2"):
        torch.testing.assert_close(
            pairwise(name, covariance_only(p), covariance_only(q)),
            pairwise(name, covariance_only(shifted), covariance_only(q)),
        )
    means = pairwise("euclidean_mean", p, q).square()
    torch.testing.assert_close(pairwise("wasserstein2_squared", mean_only(p), mean_only(q)), means)
    torch.testing.assert_close(2 * pairwise("symmetric_kl", mean_only(p), mean_only(q)), means)
    with pytest.raises(ValueError, match="mean of image 0 of p is zero"):
        pairwise("cosine_mean", covariance_only(p), q)
