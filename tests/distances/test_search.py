"""Ranking by bounds equals the full sort, on easy and on hostile spectra; the bounds are bounds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_geometry.distances import covariance_only, pairwise, rank
from retrieval_geometry.distances import search as search_module
from retrieval_geometry.distances._bounds import (
    affine_invariant_lower_bound,
    wasserstein2_squared_lower_bound,
)
from retrieval_geometry.image_models import Gaussian, fit_gaussian

SPECTRA = ("random", "equal", "rank one", "steep", "scales", "duplicates", "grid")


def gaussians(kind: str, n: int, dim: int, seed: int, dtype: torch.dtype = torch.float64) -> Gaussian:
    """Return images whose covariances have spectra of the given kind."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotations = torch.linalg.qr(normal(n, dim, dim)).Q
    spectra = {
        "random": normal(n, dim).exp(),
        "equal": torch.ones(n, dim, dtype=torch.float64),
        "rank one": torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.long), dim).double(),
        "steep": (torch.logspace(0, -8, dim, dtype=torch.float64) * normal(n, 1).exp()),
        "scales": torch.logspace(-6, 6, n, dtype=torch.float64)[:, None] * normal(n, dim).square() + 1e-9,
        "duplicates": normal(1, dim).exp().expand(n, dim),
        "grid": torch.ones(n, dim, dtype=torch.float64) * torch.randint(1, 3, (n, 1), generator=generator),
    }[kind]
    means = normal(n, dim)
    if kind == "duplicates":
        rotations, means = rotations[:1].expand(n, dim, dim), means[:1].expand(n, dim)
    if kind == "grid":
        means = torch.randint(0, 2, (n, dim), generator=generator).double()
    factor = rotations * spectra.sqrt().unsqueeze(1)
    return Gaussian(means, factor @ factor.mT).to(dtype)


def assert_equals_the_full_sort(p: Gaussian, q: Gaussian, distance: str, k: int) -> None:
    """Compare with the stable sort of all pairs, ties included."""
    found = rank(p, q, distance, k)
    full = pairwise(distance, p, q).sort(dim=1, stable=True)
    assert torch.equal(found.indices, full.indices[:, :k])
    assert torch.equal(found.distances, full.values[:, :k])
    assert (found.evaluated >= k).all()
    assert (found.evaluated <= len(q)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", SPECTRA)
@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 9), size=st.integers(1, 60), data=st.data())
def test_wasserstein_ranking_is_the_full_sort(
    kind: str, dtype: torch.dtype, seed: int, dim: int, size: int, data: st.DataObject
) -> None:
    k = data.draw(st.one_of(st.just(size), st.integers(1, size)))
    q = gaussians(kind, size, dim, seed, dtype)
    p = Gaussian(torch.cat([q.mean[:1], q.mean[-1:]]), torch.cat([q.cov[:1], q.cov[-1:]]))
    assert_equals_the_full_sort(p, q, "wasserstein2", k)
    assert_equals_the_full_sort(covariance_only(p), covariance_only(q), "wasserstein2_squared", k)


@pytest.mark.parametrize("kind", [kind for kind in SPECTRA if kind not in {"rank one", "steep"}])
@settings(max_examples=40, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 9), size=st.integers(1, 60), data=st.data())
def test_affine_invariant_ranking_is_the_full_sort(
    kind: str, seed: int, dim: int, size: int, data: st.DataObject
) -> None:
    k = data.draw(st.one_of(st.just(size), st.integers(1, size)))
    q = gaussians(kind, size, dim, seed)
    assert_equals_the_full_sort(q[:2], q, "affine_invariant", k)


@pytest.mark.parametrize("distance", ["symmetric_kl", "stein", "log_euclidean", "euclidean_mean"])
def test_every_other_distance_is_sorted_in_full(distance: str) -> None:
    q = gaussians("random", 30, 4, 1)
    assert_equals_the_full_sort(q[:3], q, distance, 7)
    assert (rank(q[:3], q, distance, 7).evaluated == 30).all()


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("dim", [1, 3, 12])
def test_the_wasserstein_bound_is_a_bound(kind: str, dim: int) -> None:
    """Pinching and duality of the fidelity (Uhlmann), super-fidelity (Miszczak et al. 2009)."""
    p, q = gaussians(kind, 12, dim, 2), gaussians(kind, 30, dim, 3)
    assert (wasserstein2_squared_lower_bound(p, q) <= pairwise("wasserstein2_squared", p, q)).all()


@pytest.mark.parametrize("dim", [1, 3, 12])
def test_the_affine_invariant_bound_is_a_bound(dim: int) -> None:
    """Exponential metric increasing property (Bhatia 2007, theorem 6.1.4)."""
    p, q = gaussians("random", 12, dim, 2), gaussians("scales", 30, dim, 3)
    assert (affine_invariant_lower_bound(p, q) <= pairwise("affine_invariant", p, q)).all()


def test_most_pairs_are_never_compared() -> None:
    """Clusters: 10 of 200 images are near each query, the bounds rule out nearly all others."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 1, 40, 6, generator=generator, dtype=torch.float64)
    x = (centres + 0.05 * torch.randn(20, 10, 40, 6, generator=generator, dtype=torch.float64)).flatten(0, 1)
    images = fit_gaussian(x)
    for distance in ("wasserstein2", "affine_invariant"):
        assert rank(images[::10], images, distance, 5).evaluated.double().mean() < 40


def test_fewer_descriptors_than_dimensions() -> None:
    x = torch.randn(40, 12, 30, generator=torch.Generator().manual_seed(1))
    images = fit_gaussian(x)
    assert_equals_the_full_sort(images[:4], images, "wasserstein2", 6)


def test_a_broken_bound_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the full sort can fail: a bound far too large loses neighbours."""
    q = gaussians("random", 60, 4, 5)
    wrong = search_module._Pruned(
        lambda p, q: 100 * pairwise("wasserstein2_squared", p, q).flip(1), torch.square
    )
    monkeypatch.setitem(search_module.PRUNED, "wasserstein2", wrong)
    found = rank(q[:4], q, k=3)
    assert not torch.equal(found.indices, pairwise("wasserstein2", q[:4], q).argsort(stable=True)[:, :3])


def test_bad_input_is_named() -> None:
    q = gaussians("random", 5, 3, 0)
    with pytest.raises(ValueError, match="distance must be one of"):
        rank(q, q, "wasserstain")
    with pytest.raises(ValueError, match="k must be a whole number from 1 to 5"):
        rank(q, q, k=6)
    with pytest.raises(ValueError, match="k must be"):
        rank(q, q, k=0)
    with pytest.raises(ValueError, match="same dimension"):
        rank(gaussians("random", 2, 4, 0), q, k=1)


@pytest.mark.gpu
def test_the_gpu_ranks_alike() -> None:
    q = gaussians("random", 50, 6, 4)
    here, there = rank(q[:5], q, k=5), rank(q[:5].to("cuda"), q.to("cuda"), k=5)
    assert torch.equal(here.indices, there.indices.cpu())
    torch.testing.assert_close(here.distances, there.distances.cpu())
