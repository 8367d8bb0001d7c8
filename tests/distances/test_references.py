"""Further references: torch.distributions, loops over sums, quadrature, and the shape of a real layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.special
import torch

from retrieval_geometry import distances
from retrieval_geometry.distances import (
    DISTANCES,
    _blocks,
    covariance_only,
    kl_divergence,
    mean_only,
    monte_carlo_kl,
    pairwise,
    symmetric_kl,
    symmetric_variational_kl,
    variational_kl,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian, GaussianMixture, fit_gaussian
from retrieval_geometry.papers.geometric.as_printed import cross_entropy_bound, cross_entropy_bound_as_printed
from tests.distances.common import DEVICES, DTYPES, TOLERANCE, gaussians, mixtures, normal, source

FULL_RANK = ["kl", "symmetric_kl", "affine_invariant", "stein", "log_euclidean"]


def torch_kl(p: Gaussian, q: Gaussian) -> torch.Tensor:
    """All pairs by torch.distributions, float64."""
    normals = [
        [
            torch.distributions.MultivariateNormal(m.double(), s.double())
            for m, s in zip(g.mean, g.cov, strict=True)
        ]
        for g in (p, q)
    ]
    rows = [[torch.distributions.kl_divergence(a, b) for b in normals[1]] for a in normals[0]]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_kl_agrees_with_torch_distributions(dim: int, dtype: torch.dtype, device: str) -> None:
    p, q = gaussians(3, dim, 21), gaussians(2, dim, 22)
    forward, backward = torch_kl(p, q), torch_kl(q, p).mT
    p, q = p.to(device, dtype), q.to(device, dtype)
    tolerance = {"rtol": TOLERANCE[dtype], "atol": 1e-2 * TOLERANCE[dtype]}
    torch.testing.assert_close(kl_divergence(p, q).cpu().double(), forward, **tolerance)
    torch.testing.assert_close(symmetric_kl(p, q).cpu().double(), (forward + backward) / 2, **tolerance)


def test_kl_is_the_mean_log_ratio_of_samples() -> None:
    """The definition itself: E_p[log p - log q], within five standard errors."""
    p, q = gaussians(2, 3, 23), gaussians(2, 3, 24)
    for i in range(2):
        for j in range(2):
            a, b = (torch.distributions.MultivariateNormal(g.mean[k], g.cov[k]) for g, k in ((p, i), (q, j)))
            x = a.mean + normal(source(25), 20_000, 3) @ torch.linalg.cholesky(a.covariance_matrix).mT
            ratio = a.log_prob(x) - b.log_prob(x)
            error = float(ratio.std()) / 20_000**0.5
            assert abs(float(kl_divergence(p[i], q[j])) - float(ratio.mean())) < 5 * error


def printed_and_corrected(p: GaussianMixture, q: GaussianMixture) -> tuple[float, float]:
    """[geometric] eq. 9 for one pair, sum by sum."""
    bounds = [0.0, 0.0]
    for w_a, m_a, v_a in zip(p.weights[0], p.means[0], p.variances[0], strict=True):
        entropy = 0.5 * sum(math.log(2 * math.pi * math.e * float(v)) for v in v_a)
        inner = [0.0, 0.0]
        for w_b, m_b, v_b in zip(q.weights[0], q.means[0], q.variances[0], strict=True):
            terms = zip(m_a.tolist(), v_a.tolist(), m_b.tolist(), v_b.tolist(), strict=True)
            divergence = sum(
                0.5 * (math.log(vb / va) + va / vb - 1 + (ma - mb) ** 2 / vb) for ma, va, mb, vb in terms
            )
            inner[0] += float(w_a) * math.exp(-divergence)
            inner[1] += float(w_b) * math.exp(-divergence)
        for which in (0, 1):
            bounds[which] += float(w_a) * (math.log(inner[which]) - entropy)
    return bounds[0], bounds[1]


@pytest.mark.parametrize(("n_p", "n_q"), [(1, 1), (2, 3), (4, 2)])
def test_both_forms_of_equation_9_are_the_sums_they_say(n_p: int, n_q: int) -> None:
    p, q = mixtures(2, n_p, 2, 26, spread=1.0), mixtures(3, n_q, 2, 27, spread=1.0)
    pairs = [[printed_and_corrected(p[i], q[j]) for j in range(3)] for i in range(2)]
    found = torch.stack([cross_entropy_bound_as_printed(p, q), cross_entropy_bound(p, q)], dim=2)
    torch.testing.assert_close(found, torch.tensor(pairs, dtype=torch.float64))


def log_density(m: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """Of a batch of one mixture in one dimension; a density itself would underflow in the tails."""
    w, mean, variance = (t.flatten().numpy()[:, None] for t in (m.weights, m.means, m.variances))
    terms = np.log(w) - (x - mean) ** 2 / (2 * variance) - np.log(2 * np.pi * variance) / 2
    return scipy.special.logsumexp(terms, axis=0)


def test_erratum_equation_8_without_logarithms_is_no_divergence() -> None:
    """Erratum 0.1, by quadrature: E[p] - E[q] is negative on some draws and grows tenfold in other units."""
    p, q = mixtures(100, 3, 1, 40, spread=1.0), mixtures(100, 3, 1, 41, spread=1.0)
    x = np.linspace(-25, 25, 10_001)
    values = []
    for scale in (1.0, 0.1):
        for i in range(100):
            parts = [
                GaussianMixture(m.weights[[i]], scale * m.means[[i]], scale**2 * m.variances[[i]])
                for m in (p, q)
            ]
            a, b = (log_density(m, scale * x) for m in parts)
            terms = np.exp(a) - np.exp(b), a - b
            values.append([np.trapezoid(np.exp(a) * term, scale * x) for term in terms])
    printed, corrected = np.array(values).reshape(2, 100, 2).transpose(2, 0, 1)
    assert (printed[0] < 0).sum() > 10
    assert (corrected >= 0).all()
    np.testing.assert_allclose(printed[1], 10 * printed[0], rtol=1e-6)
    np.testing.assert_allclose(corrected[1], corrected[0], rtol=1e-6, atol=1e-9)


def test_erratum_one_univariate_normal_is_another_model() -> None:
    """Erratum 0.7: one normal for all numbers cannot tell channels apart, a multivariate one can."""
    x = torch.tensor([1.0, 5.0, 9.0]) + normal(source(42), 1, 50, 3)
    swapped = x[..., [2, 0, 1]]
    one_number = [fit_gaussian(points.flatten(1).unsqueeze(2)) for points in (x, swapped)]
    multivariate = [fit_gaussian(points) for points in (x, swapped)]
    assert abs(float(symmetric_kl(*one_number))) < 1e-9
    assert float(symmetric_kl(*multivariate)) > 1


def test_erratum_equation_9_against_quadrature_on_200_draws() -> None:
    """Erratum 0.2 without sampling error: the integral of p log q in one dimension is known to 1e-8."""
    p, q = mixtures(200, 3, 1, 28, spread=1.0), mixtures(200, 3, 1, 29, spread=1.0)
    x = np.linspace(-25, 25, 20_001)
    truth = [np.trapezoid(np.exp(log_density(p[i], x)) * log_density(q[i], x), x) for i in range(200)]
    exact = torch.tensor(np.array(truth)).double()
    corrected, printed = (f(p, q).diagonal() for f in (cross_entropy_bound, cross_entropy_bound_as_printed))
    assert int((corrected > exact + 1e-6).sum()) == 0
    assert int((printed > exact + 1e-6).sum()) > 20


def test_variational_kl_is_the_difference_of_two_bounds() -> None:
    """Erratum 0.3: eq. 10 = bound on E_p[log p] - bound on E_p[log q]; that is why its sign is free."""
    p, q = mixtures(3, 4, 2, 30), mixtures(4, 3, 2, 31)
    own = torch.cat([cross_entropy_bound(p[i], p[i]) for i in range(3)])
    torch.testing.assert_close(variational_kl(p, q), own - cross_entropy_bound(p, q))


def test_erratum_variational_kl_is_no_bound_of_the_divergence_on_either_side() -> None:
    """Erratum 0.3, by quadrature; and it is negative where the divergence cannot be."""
    p, q = mixtures(200, 2, 1, 32, spread=1.0), mixtures(200, 2, 1, 33, spread=1.0)
    x = np.linspace(-25, 25, 10_001)
    truth = []
    for i in range(200):
        a, b = log_density(p[i], x), log_density(q[i], x)
        truth.append(np.trapezoid(np.exp(a) * (a - b), x))
    exact, found = torch.tensor(np.array(truth)).double(), variational_kl(p, q).diagonal()
    assert (exact >= 0).all()
    assert (found > exact + 1e-3).any()
    assert (found < exact - 1e-3).any()
    assert (found < -1e-3).any()


def test_symmetric_variational_kl_of_one_component_is_the_symmetric_kl() -> None:
    p, q = mixtures(3, 1, 4, 34), mixtures(2, 1, 4, 35)
    torch.testing.assert_close(symmetric_variational_kl(p, q), symmetric_kl(p.collapse(), q.collapse()))


def test_a_component_in_two_halves_is_the_same_mixture() -> None:
    p, q = mixtures(2, 3, 2, 36), mixtures(2, 3, 2, 37)
    first = p.weights[:, :1] / 2
    halves = GaussianMixture(
        torch.cat([first, p.weights[:, 1:], first], dim=1),
        torch.cat([p.means, p.means[:, :1]], dim=1),
        torch.cat([p.variances, p.variances[:, :1]], dim=1),
    )
    for name in ("variational_kl", "symmetric_variational_kl", "mixture_wasserstein2_squared"):
        torch.testing.assert_close(pairwise(name, halves, q), pairwise(name, p, q), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(pairwise(name, q, halves), pairwise(name, q, p), rtol=1e-9, atol=1e-9)


def test_monte_carlo_repeats_with_its_generator_and_its_error_falls_with_the_root() -> None:
    p, q = mixtures(1, 3, 2, 38), mixtures(2, 3, 2, 39)
    first, again = (monte_carlo_kl(p, q, 500, source(1)) for _ in range(2))
    assert torch.equal(first.value, again.value)
    assert not torch.equal(first.value, monte_carlo_kl(p, q, 500, source(2)).value)
    ratio = first.standard_error / monte_carlo_kl(p, q, 50_000, source(3)).standard_error
    assert ((ratio > 5) & (ratio < 20)).all()
    with pytest.raises(ValueError, match="n_samples must be a whole number at least 2, got 1"):
        monte_carlo_kl(p, q, 1)


@pytest.fixture(scope="module")
def layer() -> torch.Tensor:
    """169 descriptors in 512 dimensions of four images, with the decaying spectrum of a real layer."""
    return normal(source(40), 4, 169, 512) * torch.logspace(0, -2, 512).double() + 0.3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("with_factor", [True, False])
def test_wasserstein_of_a_real_layer(layer: torch.Tensor, with_factor: bool, dtype: torch.dtype) -> None:
    """Nuclear norm of the product of the centred descriptors, numpy float64."""
    x = layer.numpy()
    centred = (x - x.mean(axis=1, keepdims=True)) / 13
    expected = torch.empty(2, 2, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            a, b = centred[i], centred[2 + j]
            shift = np.sum((x[i].mean(axis=0) - x[2 + j].mean(axis=0)) ** 2)
            cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
            expected[i, j] = shift + np.sum(a**2) + np.sum(b**2) - 2 * cross
    g = fit_gaussian(layer.to(dtype))
    g = g if with_factor else Gaussian(g.mean, g.cov)
    found = wasserstein2_squared(g[:2], g[2:])
    torch.testing.assert_close(found.double(), expected, rtol=TOLERANCE[dtype], atol=0)
    assert (wasserstein2_squared(g, g).diagonal() < 1e-3 * found.min()).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FULL_RANK)
def test_a_real_layer_without_shrinkage_is_refused(
    layer: torch.Tensor, name: str, dtype: torch.dtype
) -> None:
    g = fit_gaussian(layer[:2].to(dtype))
    with pytest.raises(
        ValueError, match=r"covariance of image 0 of [pq] is not positive .*fit_gaussian.*shrink"
    ):
        pairwise(name, g, g)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_layer_with_shrinkage(layer: torch.Tensor, dtype: torch.dtype) -> None:
    """One pair at full size: factorisations of 512 x 512 by scipy, one at a time."""
    g = fit_gaussian(layer[:2].to(dtype), shrinkage=0.1)
    (ma, mb), (sa, sb) = g.mean.double().numpy(), g.cov.double().numpy()
    ratios = scipy.linalg.eigh(sa, sb, eigvals_only=True)
    shift = scipy.linalg.solve_triangular(np.linalg.cholesky(sb), ma - mb, lower=True)
    expected = {
        "kl": (ratios - 1 - np.log(ratios)).sum() / 2 + shift @ shift / 2,
        "affine_invariant": np.linalg.norm(np.log(ratios)),
        "stein": (np.log((1 + ratios) / 2) - np.log(ratios) / 2).sum(),
    }
    for name, value in expected.items():
        assert float(pairwise(name, g[:1], g[1:])) == pytest.approx(value, rel=TOLERANCE[dtype]), name


@pytest.mark.parametrize(
    ("n", "bytes_each", "sizes"),
    [(0, 8, []), (3, 1000, [1, 1, 1]), (7, 25, [4, 3]), (7, 0, [7]), (4, 25, [4])],
)
def test_blocks_cover_everything_once(
    n: int, bytes_each: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 100)
    found = _blocks.blocks(n, bytes_each)
    assert [cut.stop - cut.start for cut in found] == sizes
    assert [i for cut in found for i in range(cut.start, cut.stop)] == list(range(n))


@pytest.mark.parametrize("name", [*FULL_RANK, "wasserstein2_squared"])
@pytest.mark.parametrize("budget", [1, 1500, 20_000])
def test_gradients_do_not_depend_on_the_memory_budget(
    name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are rows, columns or both; the last may be short."""

    def gradients() -> list[torch.Tensor]:
        parts = [t.clone().requires_grad_() for g in (p, q) for t in (g.mean, g.cov)]
        values = pairwise(name, Gaussian(*parts[:2]), Gaussian(*parts[2:]))
        (values * weight).sum().backward()
        return [torch.zeros_like(t) if t.grad is None else t.grad for t in parts]

    p, q = gaussians(5, 3, 41), gaussians(7, 3, 42)
    weight = normal(source(43), 5, 7)
    whole = gradients()
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", budget)
    for found, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", DISTANCES)
def test_every_name_is_a_public_function_and_gives_all_pairs(name: str) -> None:
    assert getattr(distances, DISTANCES[name].__name__) is DISTANCES[name]
    if "variational" in name or "mixture" in name:
        p, q = mixtures(2, 3, 2, 44), mixtures(3, 3, 2, 45)
    elif name == "sinkhorn":
        p, q = normal(source(44), 2, 4, 2), normal(source(45), 3, 5, 2)
    else:
        p, q = gaussians(2, 2, 44), gaussians(3, 2, 45)
    found = pairwise(name, p, q)
    assert found.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            one = pairwise(name, p[i : i + 1], q[j : j + 1])
            torch.testing.assert_close(found[i : i + 1, j : j + 1], one, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("wrong", ["", "KL", "wasserstein", None])
def test_an_unknown_distance_lists_all_known_ones(wrong: str) -> None:
    with pytest.raises(ValueError, match="name must be one of " + ", ".join(DISTANCES)):
        pairwise(wrong, None, None)


def test_controls_keep_what_they_do_not_drop() -> None:
    g = fit_gaussian(normal(source(46), 3, 4, 6))
    shapes, places = covariance_only(g), mean_only(g)
    assert shapes.cov is g.cov
    assert shapes.factor is g.factor
    assert not shapes.mean.any()
    assert torch.equal(places.mean, g.mean)
    assert torch.equal(places.cov, torch.eye(6).double().expand(3, -1, -1))
    total = wasserstein2_squared(shapes, shapes) + pairwise("euclidean_mean", g, g).square()
    torch.testing.assert_close(wasserstein2_squared(g, g), total, rtol=1e-6, atol=1e-9)


def test_cosine_ignores_lengths_and_keeps_small_angles() -> None:
    """1 - cos(1e-5) is 5e-11: the difference of the printed form would be all rounding."""
    angles = torch.tensor([0.0, 1e-5, math.pi / 2, math.pi]).double()
    means = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([1.0, 7.0, 0.1, 3.0])[:, None]
    g = Gaussian(means, torch.eye(2).double().expand(4, -1, -1))
    expected = 2 * (angles / 2).sin().square()
    torch.testing.assert_close(pairwise("cosine_mean", g[:1], g)[0], expected, rtol=1e-6, atol=0)
