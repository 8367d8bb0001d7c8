"""Scales and conditions: right within the stated ranges, refused by name outside them."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

from retrieval_geometry.distances import (
    affine_invariant_distance,
    kl_divergence,
    log_euclidean_distance,
    mixture_wasserstein2_squared,
    pairwise,
    stein_divergence,
    variational_kl,
    wasserstein2,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian, GaussianMixture, fit_gaussian
from tests.distances.common import (
    DTYPES,
    FULL_RANK,
    REFERENCES,
    gaussians,
    joined,
    mixtures,
    normal,
    source,
)


@pytest.mark.parametrize("scale", [1e-128, 1e-90, 1e-60, 1e60, 1e90, 1e128])
@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("with_factor", [False, True])
def test_a_common_scale_does_what_it_should(name: str, scale: float, with_factor: bool) -> None:
    power = {"wasserstein2": 1, "euclidean_mean": 1, "wasserstein2_squared": 2}.get(name, 0)
    x = normal(source(8), 4, 20, 5)
    g = fit_gaussian(x)
    if not with_factor:
        g = Gaussian(g.mean, g.cov)
    scaled = Gaussian(scale * g.mean, scale * (scale * g.cov), None if g.factor is None else scale * g.factor)
    expected = pairwise(name, g[:2], g[2:])
    torch.testing.assert_close(
        pairwise(name, scaled[:2], scaled[2:]) / scale**power, expected, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("scale", [1e-60, 1e-20, 1e20, 1e60])
@pytest.mark.parametrize("dim", [3, 8])
def test_images_of_different_scales(scale: float, dim: int) -> None:
    """Every eigenvalue of the pair times the square of the scale."""
    p, q = gaussians(2, dim, 9), gaussians(2, dim, 10)
    large = Gaussian(q.mean, scale * (scale * q.cov))
    twice = 2 * torch.tensor(scale, dtype=torch.float64).log()
    for i in range(2):
        for j in range(2):
            solved = torch.linalg.solve_ex(p.cov[i], q.cov[j])[0]
            logs = torch.linalg.eigvals(solved).real.log() + twice
            pair = p[i], large[j]
            torch.testing.assert_close(affine_invariant_distance(*pair)[0, 0], logs.norm(), rtol=1e-9, atol=0)
            stein = (
                logs.abs() / 2 + torch.log1p((-logs.abs()).exp()) - torch.tensor(2.0).double().log()
            ).sum()
            torch.testing.assert_close(stein_divergence(*pair)[0, 0], stein, rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [1e-150, 1e-140, 1e140, 1e153])
@pytest.mark.parametrize("name", [*FULL_RANK, "wasserstein2", "wasserstein2_squared"])
def test_scales_outside_the_range_are_refused_by_name(name: str, scale: float) -> None:
    g = gaussians(3, 2, 11)
    cov = g.cov.clone()
    cov[1] = cov[1] * scale * scale
    with pytest.raises(ValueError, match=r"image 1 of q has means up to .* between 1e-130 and 1e\+130"):
        pairwise(name, g, Gaussian(g.mean, cov))


@pytest.mark.parametrize("exponent", [-165, 153])
def test_covariances_of_1e_165_and_1e153_are_right(exponent: int) -> None:
    """Variances; their squares, and those of their products, are no numbers of float64."""
    g = gaussians(4, 5, 12)
    scaled = Gaussian(torch.zeros_like(g.mean), g.cov * 10.0**exponent)
    plain = Gaussian(torch.zeros_like(g.mean), g.cov)
    expected = wasserstein2_squared(plain[:2], plain[2:])
    torch.testing.assert_close(
        wasserstein2_squared(scaled[:2], scaled[2:]) / 10.0**exponent, expected, rtol=1e-9, atol=0
    )


def test_float32_means_times_1e_23_keep_their_order() -> None:
    """Squared, they are below the smallest float32: the root is taken before, the square is refused."""
    places = torch.arange(5.0)[:, None] * 1e-23
    g = Gaussian(places, torch.zeros(5, 1, 1))
    torch.testing.assert_close(wasserstein2(g[:1], g)[0], places[:, 0], rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match=r"image 0 of p and image 1 of q.* too small for torch.float32"):
        wasserstein2_squared(g[:1], g)
    alike = gaussians(2, 3, 13)
    small = Gaussian(alike.mean * 1e-15, alike.cov * 1e-30).to(torch.float32)
    assert wasserstein2_squared(small, small).isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_divergences_too_large_for_the_dtype_are_refused_by_name(dtype: torch.dtype) -> None:
    low, high = (1e-30, 1e30) if dtype == torch.float32 else (1e-200, 1e200)
    g = Gaussian(torch.zeros(2, 1, dtype=dtype), torch.tensor([low, high], dtype=dtype).view(2, 1, 1))
    for name in ("kl", "symmetric_kl"):
        with pytest.raises(ValueError, match=r"image [01] of p from image [01] of q is too large for"):
            pairwise(name, g, g)
    m = GaussianMixture(torch.ones(2, 1, dtype=dtype), g.mean[:, None], g.cov)
    with pytest.raises(ValueError, match="image 1 of p from image 0 of q is too large for"):
        variational_kl(m, m)
    # The other way is the logarithm of the ratio, less 1: what vanishes beside them vanishes rightly.
    expected = (math.log(high) - math.log(low) - 1) / 2
    for value in (variational_kl(m[:1], m[1:]), kl_divergence(g[:1], g[1:])):
        assert float(value) == pytest.approx(float(expected), rel=1e-6)


def test_mixtures_outside_the_range_are_refused_by_name() -> None:
    m = mixtures(2, 2, 2, 14)
    means = m.means.clone()
    means[1] = 1e200
    for distance in (variational_kl, mixture_wasserstein2_squared):
        with pytest.raises(ValueError, match=r"image 1 of q has means up to 1e.200"):
            distance(m, GaussianMixture(m.weights, means, m.variances))


def test_columns_count_as_centred_within_rounding_only() -> None:
    """A sum of 7e-7 of the norm is no rounding in float64."""
    x = normal(source(15), 4, 6, 9)
    factor = (x - x.mean(dim=1, keepdim=True)).mT
    factor = factor + 7e-7 * factor.norm(dim=(1, 2), keepdim=True) * normal(source(16), 4, 9, 1) / 9
    g = Gaussian(torch.zeros(4, 9).double(), factor @ factor.mT, factor)
    cross = [[torch.linalg.svdvals(a.mT @ b).sum() for b in factor[2:]] for a in factor[:2]]
    sizes = factor.square().sum(dim=(1, 2))
    expected = sizes[:2, None] + sizes[2:] - 2 * torch.tensor(cross, dtype=torch.float64)
    torch.testing.assert_close(wasserstein2_squared(g[:2], g[2:]), expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_another_image_that_is_not_centred_changes_nothing(dtype: torch.dtype) -> None:
    centred = fit_gaussian(normal(source(17), 3, 7, 9).to(dtype))
    factor = normal(source(18), 1, 9, 7).to(dtype)
    mixed = Gaussian(
        torch.cat([centred.mean, factor[:, :, 0]]),
        torch.cat([centred.cov, factor @ factor.mT]),
        torch.cat([centred.factor, factor]),
    )
    found = wasserstein2(mixed, mixed)
    torch.testing.assert_close(found[:3, :3], wasserstein2(centred, centred), rtol=1e-6, atol=1e-7)
    again = mixed[torch.tensor([0, 3, 1, 0])]
    d = wasserstein2(mixed, again)
    assert torch.equal(d[:, 0], d[:, 3])


def test_a_factor_with_the_right_trace_and_swapped_rows_is_refused() -> None:
    g = fit_gaussian(normal(source(19), 3, 10, 40) * torch.logspace(0, -1, 40).double())
    factor = g.factor.clone()
    factor[2, [3, 4]] = factor[2, [4, 3]]
    for side in ("p", "q"):
        pair = [g, Gaussian(g.mean, g.cov, factor)]
        with pytest.raises(
            ValueError, match=f"factor of image 2 of {side} does not belong to its covariance"
        ):
            wasserstein2(*(pair if side == "q" else pair[::-1]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("n", "dim", "offset"), [(2, 300, 0.0), (169, 128, 0.0), (300, 3, 1e4), (5, 5, 1e-20)]
)
def test_rounding_is_no_foreign_factor(n: int, dim: int, offset: float, dtype: torch.dtype) -> None:
    x = normal(source(20), 4, n, dim) * torch.logspace(0, -6, dim).double() + offset
    g = fit_gaussian(x.to(dtype))
    assert wasserstein2(g[:2], g[2:]).isfinite().all()


def integers(dim: int) -> tuple[Gaussian, torch.Tensor]:
    """Exact L diag L' with -1 below the diagonal: no pivot is small, and the inverse has entries of 2^dim."""
    lower = torch.eye(dim).double() - torch.ones(dim, dim).double().tril(-1)
    variances = torch.randint(1, 9, (2, dim), generator=source(21)).double()
    return Gaussian(torch.zeros(2, dim).double(), (lower * variances.unsqueeze(1)) @ lower.mT), variances


@pytest.mark.parametrize("name", FULL_RANK)
@pytest.mark.parametrize("dim", [23, 26])
def test_a_condition_that_no_pivot_shows_is_refused_by_name(name: str, dim: int) -> None:
    bad, _ = integers(dim)
    good = Gaussian(torch.zeros(1, dim).double(), torch.eye(dim).double()[None])
    with pytest.raises(
        ValueError, match=r"covariance of image 1 of [pq] is too near to a singular one.*shrink"
    ):
        pairwise(name, joined(good, bad), joined(good, bad))


@pytest.mark.parametrize("dim", [8, 14, 19])
def test_below_that_condition_the_distances_are_right(dim: int) -> None:
    g, variances = integers(dim)
    ratio = variances[0] / variances[1]
    expected = {
        "affine_invariant": ratio.log().norm(),
        "kl": (ratio - 1 - ratio.log()).sum() / 2,
        "stein": ((1 + ratio) / 2 / ratio.sqrt()).log().sum(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(pairwise(name, g[:1], g[1:])[0, 0], value, rtol=1e-4, atol=0)


def test_logarithms_of_channels_in_far_units() -> None:
    """Condition 1e16 by the units alone: small eigenvalues are taken from the Cholesky factor."""
    units = torch.logspace(-4, 4, 4, dtype=torch.float64)
    g = gaussians(2, 4, 22)
    g = Gaussian(g.mean, g.cov * units * units[:, None])
    with mpmath.workdps(60):
        logs = []
        for cov in g.cov:
            values, vectors = mpmath.eigsy(mpmath.matrix(((cov + cov.mT) / 2).tolist()))
            logs.append(vectors * mpmath.diag([mpmath.log(v) for v in values]) * vectors.T)
        expected = float(mpmath.sqrt(sum(x**2 for x in logs[0] - logs[1])))
    assert float(log_euclidean_distance(g[:1], g[1:])) == pytest.approx(expected, rel=1e-6)


def test_a_pair_that_spans_too_much_is_refused_by_name() -> None:
    """Units that the images do not share: their eigenvalues span 1e24."""
    units = torch.logspace(-6, 6, 4, dtype=torch.float64)
    p = Gaussian(torch.zeros(1, 4).double(), torch.diag(units)[None])
    q = gaussians(2, 4, 23)
    cov = torch.stack([q.cov[0] * units[:, None] * units, q.cov[1] / units[:, None] / units])
    with pytest.raises(ValueError, match=r"image 0 of p and image 1 of q.*factor of more than 1e20"):
        affine_invariant_distance(p, Gaussian(q.mean, cov))
    assert affine_invariant_distance(p, Gaussian(q.mean[:1], cov[:1])).isfinite().all()
