"""Ranking by bounds equals the full sort, on easy and on hostile spectra; the bounds are bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tqdm import tqdm

from retrieval_geometry.distances import GalleryIndex, _blocks, covariance_only, pairwise, rank
from retrieval_geometry.distances import search as search_module
from retrieval_geometry.distances._affine_invariant_bound import AffineInvariantBound
from retrieval_geometry.distances._blocks import take
from retrieval_geometry.distances._bounds import (
    Bound,
    Bounds,
    keep_all,
    kept_bounds,
    passing_bounds,
    root_unit,
)
from retrieval_geometry.distances._wasserstein_bound import WassersteinBound, sharper_wasserstein
from retrieval_geometry.distances.wasserstein import FactorFeatures
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


def assert_is_below(bound_type: type[Bound], p: Gaussian, q: Gaussian, distance: str) -> None:
    """In the frame of the database and in one that is foreign to it, streamed and from what is kept."""
    values = pairwise(distance, p, q)
    for bound in (bound_type.of(q), bound_type.of(p[:1])):
        for bounds in (passing_bounds(bound, p, q), kept_bounds(bound, p, q, keep_all(bound, q))):
            for lower in (bounds.lower, _sharper(distance, p, q, bounds)):
                assert (lower >= 0).all()
                assert (lower.isfinite()).all()
                assert not (search_module.PRUNED[distance].finish(lower).to(p.dtype) > values).any()


def _sharper(distance: str, p: Gaussian, q: Gaussian, bounds: Bounds) -> torch.Tensor:
    """The second bounds of all pairs, or the first where there are no second ones."""
    method = search_module.PRUNED[distance]
    if method.sharper is None:
        return bounds.lower
    comparison = method.comparison(p, q)
    images, queries = comparison.prepare(q, "q", 0), comparison.prepare(p, "p", 0)
    rows = [
        method.sharper(take(queries, slice(i, i + 1)), images, bounds.leading[i], bounds.rest[i])
        for i in range(len(p))
    ]
    return torch.stack(rows)


def assert_is_searched_exactly(p: Gaussian, q: Gaussian, distance: str, k: int) -> None:
    """By ``rank`` and by an index, which keep apart what they prepare."""
    assert_equals_the_full_sort(p, q, distance, k)
    found, kept = rank(p, q, distance, k), GalleryIndex(q, distance).rank(p, k)
    assert torch.equal(found.indices, kept.indices)
    assert torch.equal(found.distances, kept.distances)


def test_a_query_in_the_null_space_of_the_database() -> None:
    """The weights of the dual bound were zero, its bounds NaN, and what is NaN was passed over."""
    db = Gaussian(torch.arange(100.0)[:, None].flip(0), torch.zeros(100, 1, 1))
    q = Gaussian(torch.zeros(1, 1), torch.full((1, 1, 1), 9.0))
    assert rank(q, db, "wasserstein2", 3).indices.tolist() == [[99, 98, 97]]
    assert GalleryIndex(db).rank(q, 3).indices.tolist() == [[99, 98, 97]]
    assert rank(q, db, "wasserstein2", 3).evaluated.item() < 100


@pytest.mark.parametrize("leak", [0.0, 1e-300, 1e-160, 1e-16, 1e-9, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_channels_that_are_missing_on_one_side(leak: float, dtype: torch.dtype) -> None:
    """Wholly or nearly; in the axes of the channels and turned."""
    generator = torch.Generator().manual_seed(0)
    factor = torch.randn(80, 6, 9, generator=generator, dtype=torch.float64)
    here = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)[:, None]
    q, p = factor * (here + leak), factor[:3] * (1 - here + leak)
    mean = torch.randn(80, 6, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(factor[0][:, :6]).Q
    for left, right in ((p, q), (turn @ p, turn @ q), (q[:3], p[torch.arange(80) % 3])):
        queries, images = (Gaussian(m, f @ f.mT).to(dtype) for m, f in ((mean[:3], left), (mean, right)))
        assert_is_searched_exactly(queries, images, "wasserstein2", 4)
        assert_is_searched_exactly(covariance_only(queries), covariance_only(images), "wasserstein2", 4)


@pytest.mark.parametrize("n_descriptors", [1, 2])
def test_one_descriptor_an_image(n_descriptors: int) -> None:
    """The covariances of the database are zero or of rank one, those of the queries are not."""
    x = torch.randn(80, 12, 5, generator=torch.Generator().manual_seed(0))
    points, spread = fit_gaussian(x[:, :n_descriptors]), fit_gaussian(x[:4])
    assert_is_searched_exactly(spread, points, "wasserstein2", 5)
    assert_is_searched_exactly(points[:4], fit_gaussian(x), "wasserstein2", 5)


@pytest.mark.parametrize("exponent", [-165, -150, -135, -70, 70, 140, 153])
def test_the_scale_of_covariances_does_not_matter(exponent: int) -> None:
    """Times 1e-165 ranks were wrong, times 1e153 an eigensolver failed."""
    images = gaussians("random", 80, 4, 8)
    factor = torch.linalg.cholesky(images.cov)
    for distance in ("wasserstein2_squared", "affine_invariant"):
        scaled = covariance_only(Gaussian(images.mean, images.cov * 10.0**exponent))
        assert_is_searched_exactly(scaled[:3], scaled, distance, 4)
    root = 10.0 ** (exponent / 2)
    carried = Gaussian(images.mean * root, (factor * root) @ (factor * root).mT, factor * root)
    assert_is_searched_exactly(carried[:3], carried, "wasserstein2", 4)
    assert_is_searched_exactly(images[:3], carried, "wasserstein2", 4)


@pytest.mark.parametrize(
    ("distance", "exponent"),
    [("wasserstein2", e) for e in (-44, -30, -23, -19, 15, 19)]
    + [("wasserstein2_squared", e) for e in (-17, 15)],
)
def test_the_scale_of_means_does_not_matter(distance: str, exponent: int) -> None:
    """Squares that underflow or overflow in float32: what the full sort makes of them, ties or not."""
    generator = torch.Generator().manual_seed(0)
    means = (torch.randn(90, 3, generator=generator, dtype=torch.float64) * 10.0**exponent).float()
    images = Gaussian(means, torch.zeros(90, 3, 3))
    assert_is_searched_exactly(images[-3:], images, distance, 5)


def test_images_of_every_scale_at_once() -> None:
    images = gaussians("random", 90, 3, 9)
    scales = torch.logspace(-140, 140, 90, dtype=torch.float64)[:, None]
    images = Gaussian(images.mean * scales.sqrt(), images.cov * scales.unsqueeze(2))
    for distance in ("wasserstein2", "affine_invariant"):
        assert_is_searched_exactly(images[::30], images, distance, 6)


@pytest.mark.parametrize("n_rows", [1, 8, 40])
def test_leading_rows_of_many_small_singular_values(n_rows: int) -> None:
    """What an eigensolver makes of a Gram matrix whose eigenvalues span more than its digits, rows of 320."""
    generator = torch.Generator().manual_seed(n_rows)
    left, right = (torch.randn(320, 320, generator=generator, dtype=torch.float64) for _ in range(2))
    left, right = torch.linalg.qr(left).Q, torch.linalg.qr(right).Q
    values = torch.logspace(0, -14, 320, dtype=torch.float64)
    leading, factor = left[:, :n_rows].mT * values[:n_rows, None], left @ torch.diag(values) @ right
    features = [
        FactorFeatures(torch.zeros(1, 320, dtype=torch.float64), f[None], f.square().sum()[None], None)
        for f in (leading.mT, factor)
    ]
    bound = sharper_wasserstein(*features, leading, torch.zeros(1, dtype=torch.float64))
    fidelity = torch.linalg.svdvals(leading @ factor).sum()
    exact = features[0].trace + features[1].trace - 2 * fidelity
    assert bound <= exact
    assert bound >= exact - 1e-4 * features[1].trace


def test_units_are_powers_of_two() -> None:
    squares = torch.logspace(-300, 300, 601, dtype=torch.float64)
    unit = root_unit(squares)
    assert (torch.frexp(unit).mantissa == 0.5).all()
    assert ((squares / unit / unit >= 0.5) & (squares / unit / unit < 2)).all()
    odd = root_unit(torch.tensor([0.0, 1e-320, 1e301, torch.inf, torch.nan], dtype=torch.float64))
    assert odd[:2].isfinite().all()
    assert (odd[2:] == torch.inf).all()


def test_an_image_near_the_largest_number_has_no_bound() -> None:
    q = gaussians("random", 60, 3, 5)
    bound = WassersteinBound.of(q)
    large = replace(q[7], cov=1e307 * torch.eye(3, dtype=torch.float64)[None], mean=1e153 * q.mean[7:8])
    large = Gaussian(torch.cat([q.mean, large.mean]), torch.cat([q.cov, large.cov]))
    lower = passing_bounds(bound, q[:3], large).lower
    assert lower.isfinite().all()
    assert (lower[:, -1] == 0).all()
    assert WassersteinBound.of(large).frame.basis.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["first", "second"])
def test_what_is_no_number_is_no_bound(which: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes a bound NaN or infinite, no image is passed over for it."""
    q, method = gaussians("random", 90, 3, 5), search_module.PRUNED["wasserstein2"]

    class Spoilt(WassersteinBound):
        def compare(self, queries: Any, images: Any) -> torch.Tensor:
            found = super().compare(queries, images)
            found[0, :, ::2] = value
            return found

    def spoilt(query: Any, images: Any, leading: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        return sharper_wasserstein(query, images, leading, rest * value)

    other = replace(method, bound=Spoilt) if which == "first" else replace(method, sharper=spoilt)
    monkeypatch.setitem(search_module.PRUNED, "wasserstein2", other)
    assert_is_searched_exactly(q[:5], q, "wasserstein2", 4)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("dim", [1, 3, 12])
def test_the_wasserstein_bound_is_a_bound(kind: str, dim: int) -> None:
    """Pinching and duality of the fidelity (Uhlmann), super-fidelity (Miszczak et al. 2009)."""
    p, q = gaussians(kind, 12, dim, 2), gaussians(kind, 30, dim, 3)
    for dtype in (torch.float64, torch.float32):
        assert_is_below(WassersteinBound, p.to(dtype), q.to(dtype), "wasserstein2_squared")


@pytest.mark.parametrize("dim", [1, 3, 12])
def test_the_affine_invariant_bound_is_a_bound(dim: int) -> None:
    """Exponential metric increasing property (Bhatia 2007, theorem 6.1.4)."""
    p, q = gaussians("random", 12, dim, 2), gaussians("scales", 30, dim, 3)
    assert_is_below(AffineInvariantBound, p, q, "affine_invariant")


def test_most_pairs_are_never_compared() -> None:
    """Clusters: 10 of 200 images are near each query, the bounds rule out nearly all others."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(20, 1, 40, 6, generator=generator, dtype=torch.float64)
    x = (centres + 0.05 * torch.randn(20, 10, 40, 6, generator=generator, dtype=torch.float64)).flatten(0, 1)
    images = fit_gaussian(x)
    for distance in ("wasserstein2", "affine_invariant"):
        assert rank(images[::10], images, distance, 5).evaluated.double().mean() < 40


def test_the_second_bound_spares_distances_where_the_first_is_loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Covariances of slow spectra in unrelated frames: without the second bound most pairs are compared."""
    x = torch.randn(150, 40, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scales = torch.logspace(0, -1, 24, dtype=torch.float64)
    mixing = torch.randn(150, 24, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images = covariance_only(fit_gaussian(x * scales @ (torch.eye(24) + 0.2 * mixing)))
    with_it = rank(images[:10], images, "wasserstein2_squared", 5)
    only_first = replace(search_module.PRUNED["wasserstein2_squared"], sharper=None)
    monkeypatch.setitem(search_module.PRUNED, "wasserstein2_squared", only_first)
    without = rank(images[:10], images, "wasserstein2_squared", 5)
    assert torch.equal(with_it.distances, without.distances)
    assert torch.equal(with_it.indices, without.indices)
    assert (with_it.evaluated <= without.evaluated).all()
    assert with_it.evaluated.sum() < without.evaluated.sum()


def test_fewer_descriptors_than_dimensions() -> None:
    x = torch.randn(40, 12, 30, generator=torch.Generator().manual_seed(1))
    images = fit_gaussian(x)
    assert_equals_the_full_sort(images[:4], images, "wasserstein2", 6)


def test_a_broken_bound_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the full sort can fail: a bound far too large loses neighbours."""
    q = gaussians("random", 60, 4, 5)

    class Wrong(WassersteinBound):
        def compare(self, queries: object, images: object) -> torch.Tensor:
            return 100 * pairwise("wasserstein2_squared", q[:4], q).flip(1)

    method = search_module.PRUNED["wasserstein2"]
    monkeypatch.setitem(search_module.PRUNED, "wasserstein2", replace(method, bound=Wrong))
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


@pytest.mark.parametrize("distance", search_module.PRUNED)
@pytest.mark.parametrize("budget", [1, 2000, 30_000])
def test_a_small_memory_budget_changes_nothing(
    distance: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = gaussians("random", 90, 5, 6)
    whole = rank(q[:7], q, distance, 4)
    monkeypatch.setattr(_blocks, "MEMORY_BUDGET", budget)
    found = rank(q[:7], q, distance, 4)
    assert torch.equal(found.indices, whole.indices)
    assert torch.equal(found.distances, whole.distances)
    assert torch.equal(found.evaluated, whole.evaluated)


@pytest.mark.parametrize("distance", search_module.PRUNED)
def test_an_image_is_prepared_once_a_round(distance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many queries ask for it; a query itself is prepared once in all."""
    method = search_module.PRUNED[distance]
    prepared = {"p": 0, "q": 0}

    def counting(p: Gaussian, q: Gaussian) -> _blocks.Comparison:
        comparison = method.comparison(p, q)

        def prepare(g: Gaussian, side: str, start: int) -> object:
            prepared[side] += len(g)
            return comparison.prepare(g, side, start)

        return comparison._replace(prepare=prepare)

    monkeypatch.setitem(search_module.PRUNED, distance, replace(method, comparison=counting))
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
    monkeypatch.setattr(_blocks, "MEMORY_BUDGET", 3000)
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


@pytest.mark.parametrize("exponent", [-23, 23])
def test_squares_that_float32_cannot_hold_are_refused_as_the_distance_refuses_them(exponent: int) -> None:
    means = (torch.arange(60.0)[:, None] + 1) * 10.0**exponent
    images = Gaussian(means, torch.zeros(60, 1, 1))
    query = Gaussian(torch.zeros(1, 1), torch.zeros(1, 1, 1))
    for find in (rank, lambda q, g, d, k: GalleryIndex(g, d).rank(q, k)):
        with pytest.raises(ValueError, match=r"too (small|large) for torch\.float32"):
            find(query, images, "wasserstein2_squared", 3)
    assert rank(query, images, "wasserstein2", 3).indices.tolist() == [[0, 1, 2]]
    assert rank(images[:3], images, "wasserstein2", 1).indices.tolist() == [[0], [1], [2]]
