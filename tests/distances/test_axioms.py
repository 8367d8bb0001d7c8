"""Theorems about the distances on drawn spectra: clustered, repeated, steep, nearly equal, singular."""

from __future__ import annotations

from collections.abc import Callable

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_geometry.distances import (
    affine_invariant_distance,
    kl_divergence,
    log_euclidean_distance,
    pairwise,
    sinkhorn_divergence,
    stein_divergence,
    symmetric_kl,
    wasserstein2,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.common import measures, normal, source

Distance = Callable[[Gaussian, Gaussian], torch.Tensor]
DRAWS = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def root_stein(p: Gaussian, q: Gaussian) -> torch.Tensor:
    return stein_divergence(p, q).sqrt()


METRICS = [
    wasserstein2,  # Villani 2003, theorem 7.3
    affine_invariant_distance,  # Forstner and Moonen 1999, theorem 1
    root_stein,  # Sra 2012, theorem 3.1
    log_euclidean_distance,  # Arsigny et al. 2006: a norm of a difference
]
DIVERGENCES = [kl_divergence, symmetric_kl]
CONGRUENCE_INVARIANT = [affine_invariant_distance, stein_divergence]


@st.composite
def images(draw: st.DrawFn, n: int = 3, lowest: float = -4.0) -> Gaussian:
    """n images of 1 to 6 dimensions; spectra e^-4 to e^4, which Hypothesis makes equal where it can."""
    dim = draw(st.integers(1, 6))
    exponents = draw(
        st.lists(st.floats(lowest, 4.0, allow_subnormal=False), min_size=n * dim, max_size=n * dim)
    )
    generator = source(draw(st.integers(0, 10**6)))
    shared = draw(st.booleans())
    basis = torch.linalg.qr(normal(generator, 1 if shared else n, dim, dim)).Q
    spectra = torch.tensor(exponents, dtype=torch.float64).view(n, 1, dim).exp()
    cov = (basis * spectra) @ basis.mT
    return Gaussian(draw(st.sampled_from([0.0, 1.0])) * normal(generator, n, dim), (cov + cov.mT) / 2)


def mapped(g: Gaussian, matrix: torch.Tensor, shift: torch.Tensor | float = 0.0) -> Gaussian:
    cov = matrix @ g.cov @ matrix.mT
    return Gaussian(g.mean @ matrix.mT + shift, (cov + cov.mT) / 2)


def well_conditioned(generator: torch.Generator, dim: int) -> torch.Tensor:
    """A random matrix of condition at most 9."""
    left, right = (torch.linalg.qr(normal(generator, dim, dim)).Q for _ in range(2))
    stretch = torch.rand(dim, generator=generator, dtype=torch.float64)
    return (left * (1 / 3 + 8 / 3 * stretch)) @ right


@pytest.mark.parametrize("distance", [*METRICS, *DIVERGENCES])
@DRAWS
@given(g=images())
def test_non_negative_and_zero_on_equal_images(distance: Distance, g: Gaussian) -> None:
    d = distance(g, g)
    assert (d >= 0).all()
    # The root of a rounding error of 1e-16, in units of covariances up to e^4.
    assert (d.diagonal() <= 1e-6).all()


@pytest.mark.parametrize("distance", [*METRICS, symmetric_kl])
@DRAWS
@given(g=images(n=4))
def test_symmetric(distance: Distance, g: Gaussian) -> None:
    p, q = g[:2], g[2:]
    torch.testing.assert_close(distance(p, q), distance(q, p).mT, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("distance", METRICS)
@DRAWS
@given(g=images(n=4))
def test_triangle_inequality(distance: Distance, g: Gaussian) -> None:
    d = distance(g, g)
    assert (d.unsqueeze(1) <= d.unsqueeze(2) + d.unsqueeze(0) + 1e-6).all()


@DRAWS
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 8), n_points=st.integers(1, 8))
def test_wasserstein_is_a_metric_on_singular_covariances(seed: int, dim: int, n_points: int) -> None:
    """Villani 2003, theorem 7.3 asks for no density."""
    d = wasserstein2(*2 * [fit_gaussian(normal(source(seed), 4, n_points, dim))])
    torch.testing.assert_close(d, d.mT, rtol=1e-9, atol=1e-6)
    assert (d.unsqueeze(1) <= d.unsqueeze(2) + d.unsqueeze(0) + 1e-6).all()


@pytest.mark.parametrize("distance", METRICS)
@DRAWS
@given(g=images(n=1), seed=st.integers(0, 10**6))
def test_different_covariances_are_apart(distance: Distance, g: Gaussian, seed: int) -> None:
    """The other half of the identity of indiscernibles: one variance raised by 1 %."""
    direction = torch.linalg.eigh(g.cov[0]).eigenvectors[:, seed % g.dim]
    stretched = g.cov + 0.01 * (direction @ g.cov[0] @ direction) * direction.outer(direction)
    assert (distance(g, Gaussian(g.mean, (stretched + stretched.mT) / 2)) > 1e-5).all()


@pytest.mark.parametrize("distance", DIVERGENCES)
def test_expected_failure_triangle_inequality_of_the_divergences(distance: Distance) -> None:
    """Variances 1, 10, 100, and three points in a row: the way is shorter in two steps."""
    variances = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).view(3, 1, 1)
    d = distance(*2 * [Gaussian(torch.zeros(3, 1).double(), variances)])
    assert d[2, 0] > d[2, 1] + d[1, 0]
    # Equal variances: half the squared Euclidean distance, where 2^2 > 1^2 + 1^2.
    means = torch.arange(3).double().view(3, 1)
    d = distance(*2 * [Gaussian(means, torch.ones(3, 1, 1).double())])
    assert float(d[0, 2]) == pytest.approx(2)
    assert float(d[0, 1] + d[1, 2]) == pytest.approx(1)


def test_expected_failure_symmetry_of_kl() -> None:
    """Variances 1 and e: (1/e) / 2 one way and (e - 2) / 2 the other."""
    e = torch.tensor(torch.e).double()
    p, q = (Gaussian(torch.zeros(1, 1).double(), v.view(1, 1, 1)) for v in (torch.ones_like(e), e))
    torch.testing.assert_close(kl_divergence(p, q).squeeze(), 1 / e / 2)
    torch.testing.assert_close(kl_divergence(q, p).squeeze(), (e - 2) / 2)


@pytest.mark.parametrize("distance", CONGRUENCE_INVARIANT)
@DRAWS
@given(g=images(n=4), seed=st.integers(0, 10**6))
def test_invariant_under_a_common_congruence(distance: Distance, g: Gaussian, seed: int) -> None:
    """Forstner and Moonen 1999, theorem 1 (iv); Sra 2012, section 2."""
    matrix = well_conditioned(source(seed), g.dim)
    p, q = g[:2], g[2:]
    torch.testing.assert_close(
        distance(mapped(p, matrix), mapped(q, matrix)), distance(p, q), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("distance", CONGRUENCE_INVARIANT)
@DRAWS
@given(g=images(n=4))
def test_invariant_under_inversion(distance: Distance, g: Gaussian) -> None:
    """Forstner and Moonen 1999, theorem 1 (v): precisions are as far apart as covariances."""
    inverse = Gaussian(g.mean, torch.cholesky_inverse(torch.linalg.cholesky(g.cov)))
    torch.testing.assert_close(
        distance(inverse[:2], inverse[2:]), distance(g[:2], g[2:]), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("distance", CONGRUENCE_INVARIANT)
@DRAWS
@given(g=images(n=2), factor=st.floats(1.5, 20.0))
def test_each_image_in_its_own_units_is_another_distance(
    distance: Distance, g: Gaussian, factor: float
) -> None:
    """Erratum 0.6: brightening one image alone moves it away from itself."""
    assert (distance(g, Gaussian(g.mean, factor**2 * g.cov)).diagonal() > 0.05).all()


@DRAWS
@given(g=images(n=4), seed=st.integers(0, 10**6), scale=st.floats(0.1, 10.0))
def test_wasserstein_follows_similarities(g: Gaussian, seed: int, scale: float) -> None:
    """Isometries and translations leave it, a scaling scales it (Villani 2003, proposition 7.16)."""
    generator = source(seed)
    rotation, shift = torch.linalg.qr(normal(generator, g.dim, g.dim)).Q, normal(generator, g.dim)
    moved = mapped(g, scale * rotation, shift)
    torch.testing.assert_close(
        wasserstein2(moved[:2], moved[2:]), scale * wasserstein2(g[:2], g[2:]), rtol=1e-6, atol=1e-5
    )


@DRAWS
@given(g=images(n=4), shift=st.floats(-100.0, 100.0))
def test_what_happens_under_a_shift_of_one_side(g: Gaussian, shift: float) -> None:
    """W2 squared gains the squared shift between equal means; distances of covariances gain nothing."""
    p = Gaussian(torch.zeros_like(g.mean[:2]), g.cov[:2])
    q = Gaussian(torch.zeros_like(g.mean[2:]), g.cov[2:])
    far = Gaussian(q.mean + shift, q.cov)
    gained = wasserstein2_squared(p, far) - wasserstein2_squared(p, q)
    torch.testing.assert_close(gained, torch.full_like(gained, g.dim * shift**2), rtol=1e-9, atol=1e-8)
    for distance in (*CONGRUENCE_INVARIANT, log_euclidean_distance):
        assert torch.equal(distance(p, far), distance(p, q))


@DRAWS
@given(g=images(n=4), seed=st.integers(0, 10**6))
def test_log_euclidean_is_invariant_under_similarities_only(g: Gaussian, seed: int) -> None:
    """Arsigny et al. 2006, section 3: rotations and scalings, not every congruence."""
    rotation = torch.linalg.qr(normal(source(seed), g.dim, g.dim)).Q
    moved, expected = mapped(g, 3 * rotation), log_euclidean_distance(g[:2], g[2:])
    torch.testing.assert_close(log_euclidean_distance(moved[:2], moved[2:]), expected, rtol=1e-6, atol=1e-7)


def test_expected_failure_log_euclidean_under_a_congruence() -> None:
    cov = torch.tensor([[[2.0, 0.9], [0.9, 1.0]], [[1.0, 0.0], [0.0, 5.0]]]).double()
    g = Gaussian(torch.zeros(2, 2).double(), cov)
    moved = mapped(g, torch.tensor([[1.0, 2.0], [0.0, 1.0]]).double())
    before, after = (log_euclidean_distance(h[:1], h[1:]) for h in (g, moved))
    assert ((after - before).abs() > 0.05 * before).all()


@pytest.mark.parametrize(
    "distance", [kl_divergence, wasserstein2, affine_invariant_distance, stein_divergence]
)
@DRAWS
@given(g=images(n=4))
def test_fewer_coordinates_are_no_farther_apart(distance: Distance, g: Gaussian) -> None:
    """Data processing (KL), 1-Lipschitz maps (W2), interlacing of generalised eigenvalues (the others)."""
    kept = max(1, g.dim - 1)
    part = Gaussian(g.mean[:, :kept], g.cov[:, :kept, :kept])
    assert (distance(part[:2], part[2:]) <= distance(g[:2], g[2:]) * (1 + 1e-9) + 1e-6).all()


@DRAWS
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 5), n_points=st.integers(2, 12))
def test_gaussians_are_no_farther_apart_than_their_descriptors(seed: int, dim: int, n_points: int) -> None:
    """Gelbrich 1990: among all measures with these moments, normal ones are the nearest."""
    x, y = normal(source(seed), 2, n_points, dim).exp()
    cost = torch.cdist(x, y).square().numpy()
    exact = ot.emd2(*2 * [[1 / n_points] * n_points], cost)
    found = wasserstein2_squared(fit_gaussian(x.unsqueeze(0)), fit_gaussian(y.unsqueeze(0)))
    assert float(found) <= exact * (1 + 1e-9) + 1e-9


@DRAWS
@given(g=images(n=2), name=st.sampled_from(["kl", "symmetric_kl", "wasserstein2_squared"]))
def test_equal_covariances_leave_the_means(g: Gaussian, name: str) -> None:
    """Mahalanobis over two, or the Euclidean square, where the shapes agree."""
    cov = g.cov[:1].expand(2, -1, -1)
    p, q = Gaussian(g.mean[:1], cov[:1]), Gaussian(g.mean[1:], cov[1:])
    shift = g.mean[0] - g.mean[1]
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(cov[0]), shift[:, None], upper=False)
    expected = shift.square().sum() if name.startswith("wass") else whitened.square().sum() / 2
    torch.testing.assert_close(pairwise(name, p, q).squeeze(), expected, rtol=1e-8, atol=1e-8)


@settings(DRAWS, max_examples=12)
@given(seed=st.integers(0, 10**6), p=st.sampled_from([1, 2]), epsilon=st.sampled_from([0.05, 0.5, 5.0]))
def test_sinkhorn_divergence_is_positive_and_convex(seed: int, p: int, epsilon: float) -> None:
    """Feydy et al. 2019, theorem 1: at least 0, and convex in each measure."""
    (x, a), (y, b) = measures(1, 4, 2, seed), measures(1, 5, 2, seed + 1)
    other = a.flip(1)

    def value(masses: torch.Tensor) -> torch.Tensor:
        return sinkhorn_divergence(x, y, masses, b, p=p, epsilon=epsilon)

    assert (value(a) >= 0).all()
    assert (value(0.3 * a + 0.7 * other) <= 0.3 * value(a) + 0.7 * value(other) + 1e-8).all()
    same = sinkhorn_divergence(x, x, a, a, p=p, epsilon=epsilon)
    torch.testing.assert_close(same, torch.zeros_like(same), rtol=0, atol=1e-7)


@settings(DRAWS, max_examples=12)
@given(seed=st.integers(0, 10**6), p=st.sampled_from([1, 2]))
def test_sinkhorn_divergence_sees_measures_and_not_lists_of_points(seed: int, p: int) -> None:
    """Order, points counted in two parts and a common isometry change nothing; units scale."""
    (x, a), (y, b) = measures(1, 4, 3, seed), measures(1, 5, 3, seed + 1)
    expected = sinkhorn_divergence(x, y, a, b, p=p, epsilon=0.3)
    order = torch.randperm(4, generator=source(seed))
    halves = torch.cat([a[:, :1] / 2, a[:, 1:], a[:, :1] / 2], dim=1)
    rotation = torch.linalg.qr(normal(source(seed), 3, 3)).Q
    for found in (
        sinkhorn_divergence(x[:, order], y, a[:, order], b, p=p, epsilon=0.3),
        sinkhorn_divergence(torch.cat([x, x[:, :1]], dim=1), y, halves, b, p=p, epsilon=0.3),
        sinkhorn_divergence(x @ rotation + 5, y @ rotation + 5, a, b, p=p, epsilon=0.3),
        sinkhorn_divergence(y, x, b, a, p=p, epsilon=0.3),
        sinkhorn_divergence(1e4 * x, 1e4 * y, a, b, p=p, epsilon=0.3 * 1e4**p) / 1e4**p,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
