"""Exact search on whatever Hypothesis can think of: every distance against the stable full sort, bit by bit.

``SEARCH_DRAWS=20000 pytest tests/distances/test_search_draws.py`` draws so many cases, new ones each time;
without it a few hundred, always the same.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from retrieval_geometry.distances import DISTANCES, GalleryIndex, Ranking, rank
from retrieval_geometry.distances.search import PRUNED, _multi_step
from retrieval_geometry.distances.search._bounds import store, stored_bounds, streamed_bounds
from retrieval_geometry.distances.search._wasserstein import WassersteinBound, _from_fidelity
from retrieval_geometry.image_models import Gaussian, GaussianMixture
from tests.distances.common import normal, source
from tests.distances.test_search_bounds import sharper_bounds

DRAWS = int(os.environ.get("SEARCH_DRAWS", "260"))
NOT_GAUSSIAN = {"variational_kl", "symmetric_variational_kl", "mixture_wasserstein2_squared", "sinkhorn"}
SEMIDEFINITE = {"wasserstein2", "wasserstein2_squared", "euclidean_mean", "cosine_mean"}
GRID = [0.0, 1.0, -1.0, 2.0]
DEVIATIONS = {torch.float32: 17, torch.float64: 145}
"""Standard deviations are drawn from ten to the minus this to ten to this."""


def share(distance: str) -> int:
    """Distances that are ranked by bounds get three quarters of the draws."""
    return max(8, DRAWS * 3 // 12 if distance in PRUNED else DRAWS * 3 // (12 * (len(DISTANCES) - 3)))


def draws(n: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(
        max_examples=n,
        derandomize="SEARCH_DRAWS" not in os.environ,
        database=None,
        deadline=None,
        suppress_health_check=checks,
    )


class Images(NamedTuple):
    """How some images are made, before numbers are drawn."""

    n_columns: int
    channels: list[bool]
    steepness: float
    jitter: int
    flat: float
    with_factor: bool


class Case(NamedTuple):
    """One search."""

    queries: Any
    database: Any
    k: int
    first_batch: int


@st.composite
def looks(draw: st.DrawFn, dim: int) -> Images:
    channels = draw(st.lists(st.booleans(), min_size=dim, max_size=dim))
    whole = draw(st.booleans())
    return Images(
        n_columns=draw(st.integers(1, dim + 3)),
        channels=[True] * dim if whole else channels,
        steepness=draw(st.sampled_from([0.0, 0.0, 1.0, 4.0, 12.0])),
        jitter=draw(st.sampled_from([0, 0, 0, 3])),
        flat=draw(st.sampled_from([0.0, 0.0, 0.1, 1.0])),
        with_factor=draw(st.booleans()),
    )


def scaled(x: torch.Tensor, exponents: torch.Tensor | float) -> torch.Tensor:
    return x * 10.0 ** torch.as_tensor(exponents, dtype=torch.float64)


def factors(look: Images, n: int, dim: int, generator: torch.Generator, on_grid: bool) -> torch.Tensor:
    """Factors ``(n, D, R)`` with the channels, the rank and the spectrum of a look; flat images are zero."""
    if on_grid:
        found = torch.randint(-1, 2, (n, dim, look.n_columns), generator=generator).double()
    else:
        found = normal(generator, n, dim, look.n_columns)
    ratio = torch.logspace(0, -look.steepness, look.n_columns, dtype=torch.float64)
    found = found * ratio * torch.tensor(look.channels).double().unsqueeze(1)
    found[torch.rand(n, generator=generator) < look.flat] = 0
    jitter = torch.randint(-look.jitter, look.jitter + 1, (n, 1, 1), generator=generator)
    return scaled(found, jitter)


def as_gaussian(mean: torch.Tensor, factor: torch.Tensor, keep: bool, dtype: torch.dtype) -> Gaussian:
    # What overflows the dtype is none of the cases that a distance takes.
    factor = factor.to(dtype)
    cov = factor.double() @ factor.double().mT
    return Gaussian(mean.to(dtype), ((cov + cov.mT) / 2).to(dtype), factor if keep else None)


@st.composite
def gaussian_cases(draw: st.DrawFn, definite: bool) -> Case:
    """Two sides that may have nothing in common, partly or nearly; many equal images; any scale."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    dim, n = draw(st.integers(1, 9)), draw(st.integers(1, 24))
    generator = source(draw(st.integers(0, 2**20)))
    on_grid = draw(st.booleans())
    one, other = draw(looks(dim)), draw(looks(dim))
    if draw(st.booleans()):
        # The queries live where the database does not.
        other = other._replace(channels=[not c for c in one.channels])
    n_distinct = draw(st.one_of(st.just(n), st.integers(1, n)))
    sides = []
    for look, count in ((one, n_distinct), (other, 2)):
        factor = factors(look, count, dim, generator, on_grid)
        if on_grid:
            mean = torch.tensor(GRID).double()[torch.randint(0, 4, (count, dim), generator=generator)]
        else:
            mean = normal(generator, count, dim)
        sides.append([scaled(mean, draw(st.sampled_from([-30.0, -4.0, 0.0, 0.0, 0.0, 4.0]))), factor])
    if draw(st.booleans()):
        # Or they are neighbours of its first images.
        sides[1] = [part[:2] + 0.01 * normal(generator, *part[:2].shape) * part[:2] for part in sides[0]]
        other = one
    leak = draw(st.sampled_from([0.0, 0.0, 1e-12, 1e-8, 1e-4]))
    sides[1][1] = sides[1][1] + leak * normal(generator, *sides[1][1].shape)
    if not draw(st.booleans()):
        turn = torch.linalg.qr(normal(generator, dim, dim)).Q
        sides = [[mean, turn @ factor] for mean, factor in sides]
    common = draw(st.one_of(st.sampled_from([0.0, -3.0]), st.floats(-DEVIATIONS[dtype], DEVIATIONS[dtype])))
    apart = draw(st.sampled_from([0.0, 0.0, 0.0, -2.0, 2.0, -12.0, 12.0]))
    for side, exponent in zip(sides, (common, common + apart), strict=True):
        side[:] = [scaled(part, exponent) for part in side]
    (mean, factor), (query_mean, query_factor) = sides
    if definite:
        factor, query_factor = (
            _definite(f, draw(st.sampled_from([1e-4, 1e-2, 1.0]))) for f in (factor, query_factor)
        )
    places = torch.arange(n)
    if n_distinct < n:
        places = torch.randint(0, n_distinct, (n,), generator=generator)
    database = as_gaussian(mean[places], factor[places], one.with_factor, dtype)
    queries = as_gaussian(query_mean, query_factor, other.with_factor, dtype)
    if draw(st.booleans()) and (database.factor is None) == (queries.factor is None):
        queries = Gaussian(
            database.mean[:2], database.cov[:2], None if database.factor is None else database.factor[:2]
        )
    assume(all(x.isfinite().all() for g in (queries, database) for x in (g.mean, g.cov)))
    k = draw(st.one_of(st.integers(1, min(n, 3)), st.integers(1, n)))
    return Case(queries, database, k, draw(st.sampled_from([1, 1, 2, 16])))


def _definite(factor: torch.Tensor, floor: float) -> torch.Tensor:
    """The same with a multiple of the identity, so that there is an inverse."""
    size = torch.linalg.matrix_norm(factor)
    size = torch.where(size > 0, size, size.max() if size.any() else 1.0)
    identity = torch.eye(factor.shape[1], dtype=factor.dtype).expand(len(factor), -1, -1)
    return torch.cat([factor, floor**0.5 * size[:, None, None] * identity], dim=2)


@st.composite
def other_cases(draw: st.DrawFn, distance: str) -> Case:
    """Mixtures or descriptors, equal ones among them."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    dim, n, n_parts = draw(st.integers(1, 4)), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    generator = source(draw(st.integers(0, 2**20)))
    scale = 10.0 ** draw(st.integers(-3, 3))
    points = scale * torch.randint(-2, 3, (n, n_parts, dim), generator=generator).double()
    if distance == "sinkhorn":
        return Case(points[:2].to(dtype), points.to(dtype), draw(st.integers(1, n)), 16)
    variances = scale**2 * (0.1 + torch.randint(1, 3, points.shape, generator=generator).double())
    weights = torch.full((n, n_parts), 1 / n_parts, dtype=torch.float64)
    mixtures = GaussianMixture(*(part.to(dtype) for part in (weights, points, variances)))
    return Case(mixtures[:2], mixtures, draw(st.integers(1, n)), 16)


def cases(distance: str) -> st.SearchStrategy[Case]:
    if distance in NOT_GAUSSIAN:
        return other_cases(distance)
    return gaussian_cases(definite=distance not in SEMIDEFINITE)


def full_sort(distance: str, queries: Any, database: Any) -> Any:
    """The stable sort of all pairs; a case that the distance does not take is none."""
    try:
        return DISTANCES[distance](queries, database).sort(dim=1, stable=True)
    except (ValueError, torch.linalg.LinAlgError):
        event(f"{distance} refuses")
        assume(False)


def assert_first(found: Ranking, full: Any, k: int) -> None:
    assert torch.equal(found.indices, full.indices[:, :k])
    torch.testing.assert_close(found.distances, full.values[:, :k], rtol=0, atol=0, equal_nan=True)
    assert ((found.evaluated >= k) & (found.evaluated <= full.values.shape[1])).all()


def assert_index_ranks(case: Case, distance: str, k: int) -> None:
    """Built, read back, and after images came and went."""
    gallery = GalleryIndex(case.database, distance)
    full = full_sort(distance, case.queries, case.database)
    assert_first(gallery.rank(case.queries, k), full, k)
    if (case.queries.factor is None) == (case.database.factor is None) and (
        case.queries.factor is None or case.queries.factor.shape[2] == case.database.factor.shape[2]
    ):
        gallery.add(case.queries)
    gallery.add(case.database[:3])
    gallery.remove([0, len(gallery) - 1])
    with tempfile.TemporaryDirectory() as folder:
        gallery.save(Path(folder) / "gallery")
        gallery = GalleryIndex.load(Path(folder) / "gallery")
    k = min(k, len(gallery))
    if k:
        # The sort first: what it refuses is no case, and the search may refuse it as well.
        full = full_sort(distance, case.queries, gallery.images)
        assert_first(gallery.rank(case.queries, k), full, k)


@pytest.mark.slow
@pytest.mark.parametrize("distance", DISTANCES)
def test_search_is_the_full_sort(distance: str) -> None:
    @draws(share(distance))
    @given(case=cases(distance))
    def check(case: Case) -> None:
        full = full_sort(distance, case.queries, case.database)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_multi_step, "FIRST_BATCH", case.first_batch)
            found = rank(case.queries, case.database, distance, case.k)
            event(
                "pairs were spared" if bool((found.evaluated < len(case.database)).any()) else "all compared"
            )
            assert_first(found, full, case.k)
            if distance in PRUNED:
                assert_index_ranks(case, distance, case.k)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("distance", PRUNED)
def test_every_bound_is_one(distance: str) -> None:
    """None is NaN, infinite or above the distance: in any frame, from what is stored or in passing."""

    @draws(max(40, DRAWS // 12))
    @given(case=cases(distance))
    def check(case: Case) -> None:
        p, q = case.queries, case.database
        full_sort(distance, p, q)
        values, method = DISTANCES[distance](p, q), PRUNED[distance]
        bound = method.bound.build(q)
        foreign = method.bound.build(p)
        some = [streamed_bounds(b, p, q) for b in (bound, foreign)]
        some.append(stored_bounds(bound, p, q, store(bound, q)))
        lower = [b.lower for b in some] + [sharper_bounds(distance, p, q, b) for b in some]
        for each in lower:
            assert each.isfinite().all()
            assert (each >= 0).all()
        if isinstance(bound, WassersteinBound):
            lower += each_fidelity_bound(bound, p, q)
        for each in lower:
            assert not (method.finish(each).to(p.dtype) > values).any()

    check()


def each_fidelity_bound(bound: WassersteinBound, p: Gaussian, q: Gaussian) -> list[torch.Tensor]:
    """What pinching, super-fidelity and duality say by themselves."""
    queries, images = bound.prepare_queries(p, 0), bound.prepare_images(q, 0)
    return [
        _from_fidelity(queries.spread.stored, images.stored, fidelity)
        for fidelity in bound.fidelities(queries, images)[:3]
    ]
