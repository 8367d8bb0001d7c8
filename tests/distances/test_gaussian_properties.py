"""Theorems about the distances between Gaussians, and what does not hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import ot
import pyriemann.geometry.distance as pyriemann
import pytest
import torch

from retrieval_geometry.distances import (
    affine_invariant_distance,
    covariance_only,
    kl_divergence,
    log_euclidean_distance,
    pairwise,
    stein_divergence,
    symmetric_kl,
    wasserstein2,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian
from tests.distances.common import gaussians, normal, source


def root_stein(p: Gaussian, q: Gaussian) -> torch.Tensor:
    return stein_divergence(p, q).sqrt()


METRICS = [
    wasserstein2,  # Villani 2003, theorem 7.3
    affine_invariant_distance,  # Forstner and Moonen 1999, theorem 1
    root_stein,  # Sra 2012, theorem 3.1
    log_euclidean_distance,  # Arsigny et al. 2006: a norm of a difference
]


def congruence(g: Gaussian, matrix: torch.Tensor) -> Gaussian:
    """The images x -> matrix x, one matrix for all or one for each."""
    return Gaussian((matrix @ g.mean.unsqueeze(2)).squeeze(2), matrix @ g.cov @ matrix.mT)


@pytest.mark.parametrize("distance", METRICS)
def test_metric_axioms(distance: Callable[[Gaussian, Gaussian], torch.Tensor]) -> None:
    g = gaussians(20, 5, 1)
    d = distance(g, g)
    off = ~torch.eye(20, dtype=torch.bool)
    torch.testing.assert_close(d, d.mT)
    torch.testing.assert_close(d.diagonal(), torch.zeros(20).double(), rtol=0, atol=1e-6)
    assert (d[off] > 1e-3).all()
    detour = d.unsqueeze(2) + d.unsqueeze(0)
    assert (d.unsqueeze(1) <= detour + 1e-9).all()


@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl])
def test_divergences_are_no_metrics(distance: Callable[[Gaussian, Gaussian], torch.Tensor]) -> None:
    """Gibbs' inequality holds; the triangle inequality fails on many triples, even for the root."""
    g = gaussians(20, 3, 2)
    d = distance(g, g)
    assert (d >= 0).all()
    assert (d.diagonal() < 1e-9).all()
    for values in (d, d.sqrt()):
        broken = values.unsqueeze(1) > values.unsqueeze(2) + values.unsqueeze(0) + 1e-9
        assert broken.any()
    assert torch.allclose(d, d.mT) == (distance is symmetric_kl)


@pytest.mark.parametrize("distance", [affine_invariant_distance, stein_divergence])
def test_invariant_under_a_common_congruence_only(
    distance: Callable[[Gaussian, Gaussian], torch.Tensor],
) -> None:
    """Forstner and Moonen 1999, theorem 1 (iv), and erratum 0.6: not under each image's own map."""
    p, q, generator = gaussians(4, 5, 3), gaussians(6, 5, 4), source(5)
    common = normal(generator, 5, 5)
    expected = distance(p, q)
    torch.testing.assert_close(distance(congruence(p, common), congruence(q, common)), expected)
    own_p, own_q = normal(generator, 4, 5, 5), normal(generator, 6, 5, 5)
    changed = distance(congruence(p, own_p), congruence(q, own_q))
    assert ((changed - expected).abs() > 1e-2 * expected).all()


@pytest.mark.parametrize("distance", [affine_invariant_distance, stein_divergence])
def test_each_image_whitened_by_itself_has_no_distance_left(
    distance: Callable[[Gaussian, Gaussian], torch.Tensor],
) -> None:
    """What "invariant under whitening" would mean if it held: every distance 0 (erratum 0.6)."""
    g = gaussians(4, 5, 6)
    white = congruence(g, torch.linalg.inv_ex(torch.linalg.cholesky(g.cov))[0])
    assert (distance(white, white) < 1e-6).all()
    assert (distance(g, g)[~torch.eye(4, dtype=torch.bool)] > 0.1).all()


def test_kl_is_invariant_under_any_common_affine_map() -> None:
    p, q, generator = gaussians(4, 5, 3), gaussians(6, 5, 4), source(5)
    matrix, shift = normal(generator, 5, 5), normal(generator, 5)
    moved = (Gaussian(h.mean + shift, h.cov) for h in (congruence(p, matrix), congruence(q, matrix)))
    torch.testing.assert_close(kl_divergence(*moved), kl_divergence(p, q), rtol=1e-6, atol=1e-9)


def test_wasserstein_is_invariant_under_a_common_isometry() -> None:
    p, q, generator = gaussians(4, 5, 3), gaussians(6, 5, 4), source(5)
    rotation = torch.linalg.qr(normal(generator, 5, 5)).Q
    moved = (Gaussian(h.mean + 3, h.cov) for h in (congruence(p, rotation), congruence(q, rotation)))
    torch.testing.assert_close(wasserstein2(*moved), wasserstein2(p, q))
    stretched = (congruence(h, 2 * rotation) for h in (p, q))
    torch.testing.assert_close(wasserstein2(*stretched), 2 * wasserstein2(p, q))


def test_log_euclidean_is_at_most_affine_invariant() -> None:
    """Exponential metric increasing property (Bhatia 2007, theorem 6.1.4)."""
    p, q = gaussians(6, 4, 7), gaussians(6, 4, 8)
    assert (log_euclidean_distance(p, q) <= affine_invariant_distance(p, q) + 1e-12).all()


def test_eight_times_stein_is_at_most_the_squared_affine_invariant() -> None:
    """Sra 2012, theorem 4.19: log cosh(t / 2) <= t^2 / 8 on each eigenvalue e^t."""
    p, q = gaussians(6, 4, 7), gaussians(6, 4, 8)
    assert (8 * stein_divergence(p, q) <= affine_invariant_distance(p, q).square() + 1e-12).all()


def test_closed_forms_in_one_dimension() -> None:
    m, s = torch.tensor([0.0, 1.5]).double(), torch.tensor([0.5, 2.0]).double()
    a, b = (Gaussian(m[i].view(1, 1), s[i].square().view(1, 1, 1)) for i in (0, 1))
    expected = {
        "kl": (s[1] / s[0]).log() + (s[0] ** 2 + (m[0] - m[1]) ** 2) / (2 * s[1] ** 2) - 0.5,
        "wasserstein2_squared": (m[0] - m[1]) ** 2 + (s[0] - s[1]) ** 2,
        "affine_invariant": (2 * (s[1] / s[0]).log()).abs(),
        "log_euclidean": (2 * (s[1] / s[0]).log()).abs(),
        "stein": ((s[0] / s[1] + s[1] / s[0]) / 2).log(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(pairwise(name, a, b).squeeze(), value)


def test_closed_forms_for_commuting_covariances() -> None:
    """A common eigenbasis: everything happens on the eigenvalues."""
    generator = source(9)
    basis = torch.linalg.qr(normal(generator, 6, 6)).Q
    values = normal(generator, 2, 6).exp()
    g = Gaussian(torch.zeros(2, 6).double(), (basis * values.unsqueeze(1)) @ basis.mT)
    a, b = values
    expected = {
        "wasserstein2_squared": (a.sqrt() - b.sqrt()).square().sum(),
        "affine_invariant": (a / b).log().norm(),
        "log_euclidean": (a / b).log().norm(),
        "stein": (((a + b) / 2).log() - (a * b).log() / 2).sum(),
        "symmetric_kl": (a / b + b / a - 2).sum() / 4,
    }
    for name, value in expected.items():
        torch.testing.assert_close(pairwise(name, g[0], g[1]).squeeze(), value)


def test_agrees_with_pyriemann_and_its_conventions() -> None:
    """pyRiemann's KL is "left" (its first argument is our p), its log-det distance the root of Stein's."""
    p, q = covariance_only(gaussians(2, 5, 10)), covariance_only(gaussians(3, 5, 11))
    theirs: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "kl": pyriemann.distance_kullback,
        "symmetric_kl": lambda a, b: pyriemann.distance_kullback_sym(a, b) / 2,
        "wasserstein2": pyriemann.distance_wasserstein,
        "affine_invariant": pyriemann.distance_riemann,
        "stein": lambda a, b: pyriemann.distance_logdet(a, b) ** 2,
        "log_euclidean": pyriemann.distance_logeuclid,
    }
    for name, distance in theirs.items():
        expected = torch.tensor([[float(distance(a.numpy(), b.numpy())) for b in q.cov] for a in p.cov])
        torch.testing.assert_close(pairwise(name, p, q), expected.double(), rtol=1e-6, atol=0, msg=name)


def test_agrees_with_pot() -> None:
    """POT returns the root (erratum 0.4 prints the square)."""
    p, q = gaussians(2, 5, 10), gaussians(3, 5, 11)
    expected = ot.gaussian.bures_wasserstein_distance(p.mean, q.mean, p.cov, q.cov)
    torch.testing.assert_close(wasserstein2(p, q), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(wasserstein2_squared(p, q), expected.square(), rtol=1e-6, atol=0)
