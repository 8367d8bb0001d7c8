"""Traps met in libraries and in numbers: what falls into each, and that the distances do not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import ot
import pyriemann.geometry.distance as pyriemann
import pytest
import torch

from retrieval_geometry._covariances import cholesky_factor, pivots_are_positive
from retrieval_geometry.distances import (
    affine_invariant_distance,
    kl_divergence,
    log_euclidean_distance,
    mixture_wasserstein2_squared,
    monte_carlo_kl,
    pairwise,
    sinkhorn_divergence,
    stein_divergence,
    symmetric_kl,
    symmetric_variational_kl,
    variational_kl,
    wasserstein2,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian, GaussianMixture, fit_gaussian
from tests.distances.common import DTYPES, REFERENCES, all_pairs, gaussians, mixtures, normal, source

COVARIANCE_DISTANCES = ["symmetric_kl", "wasserstein2", "affine_invariant", "stein", "log_euclidean"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ["kl", "affine_invariant", "stein", "log_euclidean"])
def test_large_batches_with_two_threads(name: str) -> None:
    """Batched LU of torch 2.13 gives wrong values from about 150 rows (issues 142815, 141358)."""
    p, q = gaussians(2, 160, 1), gaussians(2, 160, 20)
    expected = all_pairs(REFERENCES[name], p, q)
    torch.testing.assert_close(pairwise(name, p, q), expected, rtol=1e-6, atol=0)


def pots_bures_wasserstein(g: Gaussian, i: int, j: int) -> float:
    """NaN where the root of a matrix fails, in whichever way."""
    parts = (t.numpy() for t in (g.mean[i], g.mean[j], g.cov[i], g.cov[j]))
    with np.errstate(invalid="ignore"):
        try:
            return float(ot.gaussian.bures_wasserstein_distance(*parts))
        except np.linalg.LinAlgError:
            return float("nan")


def test_pots_closed_form_is_nan_at_low_rank() -> None:
    """Four descriptors in nine dimensions are enough; the nuclear norm of the factors is finite."""
    g = fit_gaussian(normal(source(2), 8, 4, 9))
    assert np.isnan([pots_bures_wasserstein(g, i, j) for i in range(8) for j in range(i)]).any()
    for bare in (g, Gaussian(g.mean, g.cov)):
        found = wasserstein2_squared(bare, bare)
        assert found.isfinite().all()
        assert (found.diagonal() < 1e-9).all()


def test_a_gram_matrix_in_float32_loses_the_fidelity() -> None:
    """The root of a rounding error: eigenvalues of 1e-7 that should be 0 become singular values of 3e-4."""
    a, b = normal(source(3), 2, 20, 60)
    exact = torch.linalg.svdvals(a.mT @ b).sum()
    product = a.float().mT @ b.float()
    gram = torch.linalg.eigvalsh(product @ product.mT).clamp_min(0).sqrt().sum()
    assert abs(gram - exact) > 1e-4 * exact
    p, q = (Gaussian(torch.zeros(1, 20), (f @ f.mT).float()[None], f.float()[None]) for f in (a, b))
    expected = a.square().sum() + b.square().sum() - 2 * exact
    torch.testing.assert_close(wasserstein2_squared(p, q).double().squeeze(), expected, rtol=1e-5, atol=0)


def test_pots_emd2_answers_zero_to_a_nan_cost_and_we_refuse() -> None:
    x = torch.full((1, 2, 2), torch.nan)
    with pytest.raises(ValueError, match="x of image 0 has a NaN"):
        sinkhorn_divergence(x, torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="means of image 0 must be finite"):
        GaussianMixture(torch.full((1, 2), 0.5), x, torch.ones(1, 2, 2))


def test_pots_batch_values_count_another_entropy() -> None:
    """ot.batch adds eps sum P log P: lower than KL to the product by the masses' entropies, 2 log n here."""
    x, y = normal(source(4), 2, 1, 5, 2)
    cost, epsilon = torch.cdist(x, y), 1.0
    solved = ot.batch.solve_batch(cost, reg=epsilon, max_iter=5000, tol=1e-12)
    plan = solved.plan
    with_kl = (plan * cost).sum() + epsilon * torch.xlogy(plan, plan * 25).sum()
    torch.testing.assert_close(with_kl - solved.value.squeeze(), torch.tensor(25.0).double().log() * epsilon)


def test_pyriemanns_logdet_is_a_root_and_its_kl_is_left() -> None:
    p, q = (Gaussian(torch.zeros(1, 3).double(), gaussians(1, 3, seed).cov) for seed in (5, 6))
    a, b = p.cov[0].numpy(), q.cov[0].numpy()
    stein, kl = float(stein_divergence(p, q)), float(kl_divergence(p, q))
    assert stein == pytest.approx(pyriemann.distance_logdet(a, b) ** 2, rel=1e-9)
    assert abs(stein - pyriemann.distance_logdet(a, b)) > 0.05
    assert kl == pytest.approx(pyriemann.distance_kullback(a, b), rel=1e-9)
    assert kl == pytest.approx(pyriemann.distance_kullback_right(b, a), rel=1e-9)
    assert abs(kl - pyriemann.distance_kullback(b, a)) > 0.01 * kl


def test_erratum_equation_13_is_a_square() -> None:
    """Erratum 0.4: three points in a row break the triangle inequality of the printed form."""
    g = Gaussian(torch.arange(3).double().view(3, 1), torch.ones(3, 1, 1).double())
    printed, root = wasserstein2_squared(g, g), wasserstein2(g, g)
    assert printed[0, 2] > printed[0, 1] + printed[1, 2]
    torch.testing.assert_close(root[0, 2], root[0, 1] + root[1, 2])


def test_the_triangle_inequality_of_kl_passes_on_lucky_triples_only() -> None:
    """A test on one seed would pass: between a tenth and a half of random triples break it."""
    d = kl_divergence(*2 * [Gaussian(torch.zeros(40, 3).double(), gaussians(40, 3, 7).cov)])
    i, j, k = torch.combinations(torch.arange(40), 3).T
    share = float((d[i, k] > d[i, j] + d[j, k]).double().mean())
    assert 0.05 < share < 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_is_judged_by_the_precision_of_the_data(dtype: torch.dtype) -> None:
    """Widened to float64, rounding alone makes some singular float32 covariances factorise."""
    left_over = torch.tensor([[[1.0, 1.0], [1.0, 1.0 + 1e-10]]], dtype=torch.float64)
    fine = pivots_are_positive(torch.linalg.cholesky(left_over), left_over, dtype)
    assert fine.tolist() == [dtype == torch.float64]
    x = normal(source(8), 20, 19, 20).to(dtype)
    centred = x - x.mean(dim=1, keepdim=True)
    for cov in (centred.mT @ centred).double().split(1):
        with pytest.raises(ValueError, match="not positive definite"):
            cholesky_factor(cov, precision=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COVARIANCE_DISTANCES)
def test_units_of_single_channels_are_not_singular(name: str, dtype: torch.dtype) -> None:
    """Channels in units 1e-4 to 1e4: condition 1e16 and more, and nothing wrong with it."""
    units = torch.logspace(-4, 4, 5, dtype=torch.float64)
    g = gaussians(4, 5, 9)
    scaled = Gaussian(g.mean * units, g.cov * units * units[:, None]).to(dtype)
    found = pairwise(name, scaled[:2], scaled[2:]).double()
    assert found.isfinite().all()
    if name not in ("wasserstein2", "log_euclidean"):
        rtol = 1e-3 if dtype == torch.float32 else 1e-6
        torch.testing.assert_close(found, pairwise(name, g[:2], g[2:]), rtol=rtol, atol=0)


@pytest.mark.parametrize("name", COVARIANCE_DISTANCES)
def test_means_far_from_the_origin_cost_no_digits(name: str) -> None:
    """Float32 descriptors around 1,000 with variance 1: the moments M of eq. 7 would hold 1e6."""
    g = gaussians(4, 4, 10).to(torch.float32)
    far = Gaussian(g.mean + 1024, g.cov)
    seen = Gaussian(far.mean.double(), far.cov.double())
    expected = all_pairs(REFERENCES[name], seen[:2], seen[2:])
    torch.testing.assert_close(pairwise(name, far[:2], far[2:]).double(), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("distance", [variational_kl, symmetric_variational_kl, mixture_wasserstein2_squared])
def test_mixtures_far_from_the_origin_cost_no_digits(distance: object) -> None:
    p, q = (
        GaussianMixture(m.weights, (m.means + 1024), m.variances).to(torch.float32)
        for m in (mixtures(2, 3, 2, 11), mixtures(2, 3, 2, 12))
    )
    wide = distance(p.to(torch.float64), q.to(torch.float64))  # type: ignore[operator]
    torch.testing.assert_close(distance(p, q).double(), wide, rtol=1e-3, atol=1e-3)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", COVARIANCE_DISTANCES)
def test_close_images_keep_their_order(name: str, dtype: torch.dtype) -> None:
    """Differences of 1 % and 2 %: large terms cancel to a small distance."""
    g = gaussians(1, 20, 13)
    cov = torch.cat([(1 + 0.01 * i) * g.cov for i in range(3)])
    near = Gaussian(g.mean.expand(3, -1), cov).to(dtype)
    seen = near.to(torch.float64)
    expected = all_pairs(REFERENCES[name], seen[:1], seen[1:])
    rtol = 2e-2 if dtype == torch.float32 else 1e-5
    torch.testing.assert_close(pairwise(name, near[:1], near[1:]).double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("distance", [affine_invariant_distance, stein_divergence])
@pytest.mark.parametrize("dim", [3, 8, 17, 33])
def test_equal_images_tie_bit_by_bit(distance: object, dim: int) -> None:
    """Rounding of a batched product depends on where a matrix begins: ties must not become an order."""
    g = gaussians(6, dim, 14)
    repeated = g[torch.tensor([0, 1, 2, 1, 3, 4, 1])]
    d = distance(g[4:], repeated)  # type: ignore[operator]
    assert torch.equal(d[:, 1], d[:, 3])
    assert torch.equal(d[:, 1], d[:, 6])


def test_gradients_at_scaled_identities_are_finite_and_not_lost() -> None:
    """Gradients through eigenvectors divide by differences of eigenvalues; a scaled identity has none."""
    cov = (torch.eye(4).double() * torch.tensor([1.0, 2.0]).view(2, 1, 1)).requires_grad_()
    g = Gaussian(torch.zeros(2, 4).double(), cov)
    for name in COVARIANCE_DISTANCES:
        (grad,) = torch.autograd.grad(pairwise(name, g[:1], g[1:]).sum(), cov)
        assert grad.isfinite().all(), name
        assert grad.abs().amax(dim=(1, 2)).min() > 1e-3, name


def test_a_batch_of_one_and_strided_inputs() -> None:
    """Views with other strides, and a batch repeated without a copy."""
    g = gaussians(4, 3, 15)
    odd = Gaussian(g.mean[::2], g.cov[::2].mT)
    shared = Gaussian(g.mean[:1].expand(3, -1), g.cov[:1].expand(3, -1, -1))
    for name in COVARIANCE_DISTANCES:
        expected = pairwise(name, g, g)
        torch.testing.assert_close(pairwise(name, odd, odd), expected[::2, ::2], rtol=1e-8, atol=1e-7)
        torch.testing.assert_close(
            pairwise(name, shared, g), expected[:1].expand(3, -1), rtol=1e-8, atol=1e-7
        )


def test_inputs_are_left_as_they_were() -> None:
    g, m = gaussians(3, 3, 16), mixtures(3, 2, 2, 17)
    kept = [t.clone() for t in (g.mean, g.cov, m.weights, m.means, m.variances)]
    for name in COVARIANCE_DISTANCES:
        pairwise(name, g, g)
    for name in ("variational_kl", "symmetric_variational_kl", "mixture_wasserstein2_squared"):
        pairwise(name, m, m)
    for before, after in zip(kept, (g.mean, g.cov, m.weights, m.means, m.variances), strict=True):
        assert torch.equal(before, after)


def test_symmetric_kl_is_half_the_sum() -> None:
    """Half as in the paper; others take the whole sum."""
    p, q = gaussians(2, 3, 18), gaussians(3, 3, 19)
    both = kl_divergence(p, q) + kl_divergence(q, p).mT
    torch.testing.assert_close(symmetric_kl(p, q), both / 2)


def test_logarithms_are_natural() -> None:
    """Covariances 1 and e^2 in one dimension: 2 and 2, not 2.9 or 0.87."""
    p, q = (Gaussian(torch.zeros(1, 1), torch.tensor([[[v]]])) for v in (1.0, torch.e**2))
    for distance in (affine_invariant_distance, log_euclidean_distance):
        assert float(distance(p, q)) == pytest.approx(2, rel=1e-5)


def test_monte_carlo_of_no_images_is_empty() -> None:
    """As every other distance between mixtures."""
    m = mixtures(2, 2, 2, 20)
    assert monte_carlo_kl(m, m[:0], 10).value.shape == (2, 0)
    assert monte_carlo_kl(m[:0], m, 10).value.shape == (0, 2)


def test_opposed_spectra_keep_their_digits() -> None:
    """Directions dead in one image and alive in the other: the Gram matrix of a pair has condition 1e16."""
    variances = torch.logspace(-4, 4, 12, dtype=torch.float64)
    turn = torch.linalg.qr(normal(source(3), 12, 12)).Q
    p, q = (
        Gaussian(torch.zeros(1, 12).double(), ((turn * v) @ turn.mT)[None])
        for v in (variances, variances.flip(0))
    )
    expected = torch.linalg.vector_norm((variances / variances.flip(0)).log())
    torch.testing.assert_close(affine_invariant_distance(p, q)[0, 0], expected, rtol=1e-6, atol=0)
    product = torch.linalg.inv(torch.linalg.cholesky(p.cov[0])) @ torch.linalg.cholesky(q.cov[0])
    squared = torch.linalg.eigvalsh(product @ product.mT).log().square().sum().sqrt()
    assert not abs(float(squared / expected) - 1) < 1e-6
