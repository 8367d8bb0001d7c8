"""Ranking by bounds equals the full sort, on easy and on hostile spectra."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from retrieval_geometry.distances import _blocks, covariance_only, pairwise, rank
from retrieval_geometry.distances.search import PRUNED
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.searching import SPECTRA, assert_equals_the_full_sort, gaussians


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


def test_fewer_descriptors_than_dimensions() -> None:
    x = torch.randn(40, 12, 30, generator=torch.Generator().manual_seed(1))
    images = fit_gaussian(x)
    assert_equals_the_full_sort(images[:4], images, "wasserstein2", 6)


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


@pytest.mark.parametrize("distance", PRUNED)
@pytest.mark.parametrize("budget", [1, 2000, 30_000])
def test_a_small_memory_budget_changes_nothing(
    distance: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = gaussians("random", 90, 5, 6)
    whole = rank(q[:7], q, distance, 4)
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", budget)
    found = rank(q[:7], q, distance, 4)
    assert torch.equal(found.indices, whole.indices)
    assert torch.equal(found.distances, whole.distances)
    assert torch.equal(found.evaluated, whole.evaluated)


@pytest.mark.parametrize("distance", PRUNED)
def test_an_image_is_prepared_once_a_round(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many queries ask for it; a query itself is prepared once in all."""
    method = PRUNED[distance]
    prepared = {"p": 0, "q": 0}

    def counting(p: Gaussian, q: Gaussian) -> _blocks.Comparison:
        comparison = method.comparison(p, q)

        def prepare(g: Gaussian, side: str, start: int) -> object:
            prepared[side] += len(g)
            return comparison.prepare(g, side, start)

        return comparison._replace(prepare=prepare)

    monkeypatch.setitem(PRUNED, distance, replace(method, comparison=counting))
    q = gaussians("equal", 40, 6, 7)
    found = rank(q[:30], q, distance, 3)
    assert prepared["p"] == 30
    # Rounds of 16, 32, ...: at most two until all 40 images are asked for.
    assert prepared["q"] <= 2 * 40 < int(found.evaluated.sum())


def test_no_query_gets_no_neighbour() -> None:
    q = gaussians("random", 5, 3, 0)
    for distance in ("wasserstein2", "affine_invariant", "stein"):
        found = rank(q[:0], q, distance, 2)
        assert found.distances.shape == found.indices.shape == (0, 2)
        assert found.distances.dtype == q.dtype
        assert found.indices.dtype == torch.long
        assert found.evaluated.shape == (0,)


def test_the_last_bits_do_not_depend_on_the_batch() -> None:
    """An odd dimension, above the block of a Cholesky factorisation, and an image that is not centred."""
    x = torch.randn(12, 150, 257, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    dense, thin = fit_gaussian(x, shrinkage=0.1), fit_gaussian(x[:, :41])
    assert thin.factor is not None
    thin.factor[7] += 0.1 * thin.factor[7].std()
    thin = Gaussian(thin.mean, thin.factor @ thin.factor.mT, thin.factor)
    for distance, images in (("affine_invariant", dense), ("wasserstein2", dense), ("wasserstein2", thin)):
        assert_equals_the_full_sort(images[3:5], images, distance, 4)


def test_progress_counts_pairs_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """After five seconds; here, where nobody looks, nothing is printed."""
    asked = []

    def bar(**options: object) -> tqdm:
        asked.append(options)
        return tqdm(**options)  # type: ignore[call-overload]

    monkeypatch.setattr(_blocks, "tqdm", bar)
    q = gaussians("random", 60, 4, 5)
    rank(q[:7], q, k=3)
    pairwise("log_euclidean", q[:7], q)
    wanted = {"total": 420, "unit": "pair", "delay": 5, "disable": None, "leave": False}
    assert [wanted | options for options in asked] == asked
    assert len(asked) == 3
    assert capfd.readouterr() == ("", "")


def test_progress_reaches_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pair is compared or ruled out."""
    done = []

    class Bar:
        def __init__(self, total: int, **options: object) -> None:
            self.left = total

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None:
            done.append(self.left)

        def update(self, n: int) -> None:
            assert n >= 0
            self.left -= n

    monkeypatch.setattr(_blocks, "tqdm", Bar)
    monkeypatch.setattr(_blocks, "BUDGET_BYTES", 3000)
    q = gaussians("random", 60, 4, 5)
    rank(q[:7], q, k=3)
    pairwise("log_euclidean", q[:7], q)
    assert set(done) == {0}


def test_a_gradient_does_not_stand_in_the_way() -> None:
    q = fit_gaussian(torch.randn(20, 6, 4, generator=torch.Generator().manual_seed(3)).requires_grad_())
    found = rank(q[:2], q, k=3)
    assert not found.distances.requires_grad
    assert found.indices[:, 0].tolist() == [0, 1]


@pytest.mark.gpu
def test_the_gpu_ranks_alike() -> None:
    q = gaussians("random", 50, 6, 4)
    here, there = rank(q[:5], q, k=5), rank(q[:5].to("cuda"), q.to("cuda"), k=5)
    assert torch.equal(here.indices, there.indices.cpu())
    torch.testing.assert_close(here.distances, there.distances.cpu())
