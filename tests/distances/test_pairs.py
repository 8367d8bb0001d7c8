"""A pair's value is the pair's: not the batch's, at any scale, and refused where its digits are lost."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_geometry.distances import (
    _certified,
    kl,
    kl_divergence,
    mixture_wasserstein2_squared,
    pairwise,
    stein_divergence,
    symmetric_kl,
    symmetric_variational_kl,
    variational_kl,
)
from retrieval_geometry.distances._gaussians import pack_symmetric
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from tests.distances.common import (
    DTYPES,
    REFERENCES,
    TOLERANCE,
    all_pairs,
    gaussians,
    joined,
    mixtures,
    normal,
    source,
)
from tests.distances.test_mixtures import variational_reference

DRAWS = settings(max_examples=20, derandomize=True, deadline=None, database=None)
WAYS = {"alone": 10**9, "in one frame": 0}
"""What ``kl.MANY`` must be for a few pairs to be computed that way."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kl, "MANY", WAYS[request.param])
    return str(request.param)


def widened(g: Gaussian) -> Gaussian:
    return g.to(torch.float64)


def outlier(dim: int, scale: float, far: float, thin: bool, seed: int) -> Gaussian:
    """Of any size, any distance, and, if thin, with a variance of 1e-4 of the others in one direction."""
    basis = torch.linalg.qr(normal(source(seed), dim, dim)).Q
    variances = torch.ones(dim, dtype=torch.float64)
    variances[0] = 1e-4 if thin else 1.0
    cov = scale * (basis * variances) @ basis.mT
    return Gaussian(far * basis[:1], ((cov + cov.mT) / 2)[None])


OUTLIERS = st.lists(
    st.tuples(
        st.integers(-12, 12).map(lambda k: 10.0**k),
        st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
        st.booleans(),
        st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e4, 1e8, 1e14])
@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl])
def test_one_large_image_leaves_the_divergences_of_the_others(
    distance: Callable[..., torch.Tensor], scale: float, dtype: torch.dtype, way: str
) -> None:
    g = gaussians(3, 4, 1).to(dtype)
    large = Gaussian(g.mean[:1], (scale * torch.eye(4, dtype=dtype))[None])
    far = Gaussian(g.mean[:1] + 1000, g.cov[:1])
    expected = all_pairs(REFERENCES[distance.__name__.removesuffix("_divergence")], *2 * [widened(g)])
    for other in (large, far):
        found = distance(*2 * [joined(g, other)])[:3, :3].double()
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
@DRAWS
@given(outliers=OUTLIERS, dim=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_outliers_leave_every_distance_of_the_others(
    name: str, outliers: list[tuple[float, float, bool, int]], dim: int, seed: int
) -> None:
    for dtype in DTYPES:
        g = gaussians(3, dim, seed).to(dtype)
        batch = joined(g, *(outlier(dim, *of).to(dtype) for of in outliers))
        seen = widened(g)
        expected = all_pairs(REFERENCES[name], seen[:2], seen[2:])
        for many in WAYS.values():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kl, "MANY", many)
                found = pairwise(name, batch, batch)[:2, 2:3].double()
            torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=1e-9)


def mixture_reference(p: GaussianMixture, q: GaussianMixture) -> torch.Tensor:
    """By the package, of one pair at a time, whose batch is the pair."""
    rows = [[mixture_wasserstein2_squared(p[i], q[j])[0, 0] for j in range(len(q))] for i in range(len(p))]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.parametrize("distance", [variational_kl, symmetric_variational_kl, mixture_wasserstein2_squared])
@DRAWS
@given(
    outliers=st.lists(
        st.tuples(st.integers(-12, 12).map(lambda k: 10.0**k), st.sampled_from([0.0, 1e3, 1e6, 1e9])),
        min_size=1,
        max_size=3,
    ),
    seed=st.integers(0, 10**6),
)
def test_outliers_leave_every_distance_of_other_mixtures(
    distance: Callable[..., torch.Tensor], outliers: list[tuple[float, float]], seed: int
) -> None:
    for dtype in DTYPES:
        m = mixtures(2, 3, 2, seed).to(dtype)
        parts = [m] + [
            GaussianMixture(m.weights[:1], m.means[:1] + far, size * m.variances[:1])
            for size, far in outliers
        ]
        batch = GaussianMixture(
            *(torch.cat([getattr(x, part) for x in parts]) for part in ("weights", "means", "variances"))
        )
        seen = m.to(torch.float64)
        if distance is mixture_wasserstein2_squared:
            expected = mixture_reference(seen, seen)
        else:
            expected = variational_reference(seen, seen)
            if distance is symmetric_variational_kl:
                expected = (expected + expected.mT) / 2
        found = distance(batch, batch)[:2, :2].double()
        torch.testing.assert_close(found, expected, rtol=TOLERANCE[dtype], atol=1e-6)


def test_mixtures_near_each_other_in_a_wide_batch() -> None:
    """Squared distances of 2e-8 beside an image 1e9 away: against a common centre they would be rounding."""
    m = mixtures(1, 3, 2, 3)
    near = GaussianMixture(m.weights, m.means + 1e-4, m.variances)
    far = GaussianMixture(m.weights, m.means + 1e9, m.variances)
    batch = GaussianMixture(
        *(
            torch.cat(parts)
            for parts in zip(*((x.weights, x.means, x.variances) for x in (m, near, far)), strict=True)
        )
    )
    found = mixture_wasserstein2_squared(batch, batch)
    assert float(found[0, 1]) == pytest.approx(2e-8, rel=1e-6)
    assert float(found[0, 0]) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl, stein_divergence])
def test_identical_images_are_at_zero(
    distance: Callable[..., torch.Tensor], dtype: torch.dtype, way: str
) -> None:
    g = joined(gaussians(5, 4, 2), outlier(4, 1e9, 1e5, True, 3)).to(dtype)
    assert torch.equal(distance(g, g).diagonal(), torch.zeros(6, dtype=dtype))


@pytest.mark.parametrize("way_to", [*WAYS, "by factors"])
@pytest.mark.parametrize("name", ["kl", "symmetric_kl"])
def test_all_ways_agree_and_have_right_gradients(
    name: str, way_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, q = gaussians(2, 3, 5), gaussians(3, 3, 6)
    monkeypatch.setattr(kl, "MANY", WAYS.get(way_to, 0))
    if way_to == "by factors":
        monkeypatch.setattr(_certified, "BATCH", dict.fromkeys(DTYPES, 0.0))
    torch.testing.assert_close(pairwise(name, p, q), all_pairs(REFERENCES[name], p, q), rtol=1e-9, atol=0)
    parts = [part.clone().requires_grad_() for g in (p, q) for part in (g.mean, g.cov)]

    def value(*parts: torch.Tensor) -> torch.Tensor:
        a, b, c, d = parts
        return pairwise(name, Gaussian(a, (b + b.mT) / 2), Gaussian(c, (d + d.mT) / 2))

    assert torch.autograd.gradcheck(value, parts)


@pytest.mark.parametrize("distance", [variational_kl, symmetric_variational_kl])
def test_mixtures_have_right_gradients_entry_by_entry(
    distance: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_certified, "BATCH", dict.fromkeys(DTYPES, -1.0))
    p, q = mixtures(1, 2, 2, 8), mixtures(2, 3, 2, 9)
    parts = [t.clone().requires_grad_() for m in (p, q) for t in (m.weights, m.means, m.variances)]

    def value(*parts: torch.Tensor) -> torch.Tensor:
        left = GaussianMixture(parts[0] / parts[0].sum(dim=1, keepdim=True), *parts[1:3])
        right = GaussianMixture(parts[3] / parts[3].sum(dim=1, keepdim=True), *parts[4:])
        return distance(left, right)

    assert torch.autograd.gradcheck(value, parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl])
def test_nearly_equal_images_keep_their_digits(
    distance: Callable[..., torch.Tensor], dtype: torch.dtype
) -> None:
    """Covariances in the ratio 1 + t: D (t - log(1 + t)) / 2, of the order of t^2."""
    t = 2.0**-10
    cov = gaussians(1, 6, 7).to(dtype).cov
    cov = torch.cat([cov, cov * (1 + t)])
    g = Gaussian(torch.zeros(2, 6, dtype=dtype), (cov + cov.mT) / 2)
    exact = mpmath.mpf(t) - mpmath.log1p(t), mpmath.log1p(t) - mpmath.mpf(t) / (1 + mpmath.mpf(t))
    expected = 3 * exact[1] if distance is kl_divergence else 3 * (exact[0] + exact[1]) / 2
    assert float(distance(g[:1], g[1:])) == pytest.approx(
        float(expected), rel=1e-6 if dtype == torch.float64 else 1e-3
    )


def test_a_packed_product_is_the_frobenius_product() -> None:
    a, b = gaussians(2, 5, 24).cov
    packed = pack_symmetric(torch.stack([a, b]), torch.float64)
    torch.testing.assert_close(packed[0] @ packed[1], (a * b).sum())


@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl])
@pytest.mark.parametrize("dim", [1, 6, 131])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (2, 9)])
def test_few_pairs_are_right_and_exactly_zero_between_identical_images(
    distance: Callable[[Gaussian, Gaussian], torch.Tensor], dim: int, shape: tuple[int, int]
) -> None:
    images = gaussians(sum(shape), dim, 5)
    p, q = images[: shape[0]], images[shape[0] :]
    name = "kl" if distance is kl_divergence else "symmetric_kl"
    torch.testing.assert_close(distance(p, q), all_pairs(REFERENCES[name], p, q), rtol=1e-9, atol=0)
    again = joined(q[:-1], p[:1])
    assert distance(p, again)[0, -1] == 0
    assert distance(again, p)[-1, 0] == 0


@pytest.mark.parametrize("distance", [kl_divergence, symmetric_kl])
@pytest.mark.parametrize("n", [1, 3])
def test_few_pairs_have_right_gradients(
    distance: Callable[[Gaussian, Gaussian], torch.Tensor], n: int
) -> None:
    one, others = gaussians(1, 3, 6), gaussians(n, 3, 7)

    def both(mean: torch.Tensor, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        moved = Gaussian(mean, factor @ factor.mT)
        return distance(moved, others), distance(others, moved)

    factor = torch.linalg.cholesky(one.cov)
    assert torch.autograd.gradcheck(both, (one.mean.requires_grad_(), factor.requires_grad_()))


@pytest.mark.parametrize(
    ("distance", "n_inverted"), [(kl_divergence, (0, 0)), (symmetric_kl, (1, 1))], ids=["kl", "symmetric"]
)
def test_one_image_against_many_inverts_no_other(
    distance: Callable[[Gaussian, Gaussian], torch.Tensor],
    n_inverted: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, others = gaussians(1, 4, 8), gaussians(24, 4, 9)
    inverse, inverted = torch.cholesky_inverse, []

    def counted(lower: torch.Tensor) -> torch.Tensor:
        inverted.append(len(lower))
        return inverse(lower)

    monkeypatch.setattr(torch, "cholesky_inverse", counted)
    for p, q, expected in ((one, others, n_inverted[0]), (others, one, n_inverted[1])):
        inverted.clear()
        distance(p, q)
        assert sum(inverted) == expected
