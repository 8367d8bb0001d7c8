"""The bounds of a search are bounds, whatever happens to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from retrieval_geometry.distances import covariance_only, pairwise, rank
from retrieval_geometry.distances._blocks import take
from retrieval_geometry.distances.search import PRUNED
from retrieval_geometry.distances.search._affine_invariant import AffineInvariantBound
from retrieval_geometry.distances.search._bounds import Bound, Bounds, store, stored_bounds, streamed_bounds
from retrieval_geometry.distances.search._rounding import root_unit
from retrieval_geometry.distances.search._wasserstein import WassersteinBound, sharper_wasserstein
from retrieval_geometry.distances.wasserstein import FactorFeatures
from retrieval_geometry.image_models import Gaussian, fit_gaussian
from tests.distances.searching import SPECTRA, assert_is_searched_exactly, gaussians


def assert_is_below(bound_type: type[Bound], p: Gaussian, q: Gaussian, distance: str) -> None:
    """In the frame of the database and in one that is foreign to it, streamed and from what is kept."""
    values = pairwise(distance, p, q)
    for bound in (bound_type.build(q), bound_type.build(p[:1])):
        for bounds in (streamed_bounds(bound, p, q), stored_bounds(bound, p, q, store(bound, q))):
            for lower in (bounds.lower, sharper_bounds(distance, p, q, bounds)):
                assert (lower >= 0).all()
                assert (lower.isfinite()).all()
                assert not (PRUNED[distance].finish(lower).to(p.dtype) > values).any()


def sharper_bounds(distance: str, p: Gaussian, q: Gaussian, bounds: Bounds) -> torch.Tensor:
    """The second bounds of all pairs, or the first where there are no second ones."""
    method = PRUNED[distance]
    if method.sharper is None:
        return bounds.lower
    comparison = method.comparison(p, q)
    images, queries = comparison.prepare(q, "q", 0), comparison.prepare(p, "p", 0)
    rows = [
        method.sharper(
            take(queries, slice(i, i + 1)), images, bounds.leading_rows[i], bounds.trailing_fidelity[i]
        )
        for i in range(len(p))
    ]
    return torch.stack(rows)


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
    bound = WassersteinBound.build(q)
    large = replace(q[7], cov=1e307 * torch.eye(3, dtype=torch.float64)[None], mean=1e153 * q.mean[7:8])
    large = Gaussian(torch.cat([q.mean, large.mean]), torch.cat([q.cov, large.cov]))
    lower = streamed_bounds(bound, q[:3], large).lower
    assert lower.isfinite().all()
    assert (lower[:, -1] == 0).all()
    assert WassersteinBound.build(large).frame.basis.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["first", "second"])
def test_what_is_no_number_is_no_bound(which: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes a bound NaN or infinite, no image is passed over for it."""
    q, method = gaussians("random", 90, 3, 5), PRUNED["wasserstein2"]

    class Spoilt(WassersteinBound):
        def lower_bounds(self, queries: Any, images: Any) -> torch.Tensor:
            found = super().lower_bounds(queries, images)
            found[0, :, ::2] = value
            return found

    def spoilt(query: Any, images: Any, leading: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
        return sharper_wasserstein(query, images, leading, rest * value)

    other = replace(method, bound=Spoilt) if which == "first" else replace(method, sharper=spoilt)
    monkeypatch.setitem(PRUNED, "wasserstein2", other)
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
    only_first = replace(PRUNED["wasserstein2_squared"], sharper=None)
    monkeypatch.setitem(PRUNED, "wasserstein2_squared", only_first)
    without = rank(images[:10], images, "wasserstein2_squared", 5)
    assert torch.equal(with_it.distances, without.distances)
    assert torch.equal(with_it.indices, without.indices)
    assert (with_it.evaluated <= without.evaluated).all()
    assert with_it.evaluated.sum() < without.evaluated.sum()


def test_a_broken_bound_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the full sort can fail: a bound far too large loses neighbours."""
    q = gaussians("random", 60, 4, 5)

    class Wrong(WassersteinBound):
        def lower_bounds(self, queries: object, images: object) -> torch.Tensor:
            return 100 * pairwise("wasserstein2_squared", q[:4], q).flip(1)

    method = PRUNED["wasserstein2"]
    monkeypatch.setitem(PRUNED, "wasserstein2", replace(method, bound=Wrong))
    found = rank(q[:4], q, k=3)
    assert not torch.equal(found.indices, pairwise("wasserstein2", q[:4], q).argsort(stable=True)[:, :3])
