"""Exact top-10 of a database: bounds and a few distances against a distance for every pair."""

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.growth import curve
from benchmarks.measure import Timing, peak_memory_mb, side_by_side
from benchmarks.riemannian import Works, affine_invariant_peers
from benchmarks.rows import Curve, Row, Settings, Side
from benchmarks.wasserstein import RIDGE, peer_works
from retrieval_geometry.distances import DISTANCES, Ranking, covariance_only, rank
from retrieval_geometry.image_models import Gaussian, fit_gaussian

NEIGHBOURS = 10
SHRINKAGE = 0.1
PEER_IMAGES = 2


def wasserstein_search_rows(settings: Settings) -> list[Row]:
    """2-Wasserstein with thin factors, on every kind of descriptors; without means where that is hardest."""
    rows = []
    for kind in settings.inputs.kinds:
        images = _images(settings, kind, 0.0)
        work = f"top-{NEIGHBOURS} by 2-Wasserstein, {settings.points} descriptors, {kind} spectra"
        rows.append(
            _row(settings, f"search_wasserstein_{kind}", work, "wasserstein2", images, _ridged, mark=500)
        )
    images = covariance_only(_images(settings, "slow", 0.0))
    work = f"top-{NEIGHBOURS} by 2-Wasserstein without means, slow spectra"
    rows.append(
        _row(settings, "search_wasserstein_slow_shapes", work, "wasserstein2", images, _ridged, mark=500)
    )
    return rows


def dense_search_rows(settings: Settings) -> list[Row]:
    """Distances of covariances of full rank."""
    kind = settings.inputs.typical
    images = _images(settings, kind, SHRINKAGE)
    rows = []
    for distance, name, peers, mark in (
        ("wasserstein2", "2-Wasserstein, full rank", peer_works, 50),
        ("affine_invariant", "affine-invariant distance", affine_invariant_peers, 75),
    ):
        work = f"top-{NEIGHBOURS} by {name}, {kind} spectra"
        rows.append(_row(settings, f"search_{distance}_full_rank", work, distance, images, peers, mark))
    return rows


def _images(settings: Settings, kind: str, shrinkage: float) -> Gaussian:
    """Queries and database in one batch; of real images there may be fewer than asked for."""
    x = settings.inputs.draw(settings.queries + settings.database, settings.points, settings.dim, kind)
    return fit_gaussian(x, shrinkage=shrinkage)


def _ridged(p: Gaussian, q: Gaussian) -> Works:
    """The peers of thin covariances get a ridge, without which they fail."""
    eye = torch.eye(p.dim)

    def ridged(g: Gaussian) -> Gaussian:
        ridge = RIDGE * g.cov.diagonal(dim1=1, dim2=2).mean(dim=1)
        return Gaussian(g.mean, g.cov + ridge[:, None, None] * eye)

    return peer_works(ridged(p), ridged(q))


def _row(
    settings: Settings,
    key: str,
    work: str,
    distance: str,
    images: Gaussian,
    peers: Callable[[Gaussian, Gaussian], Works],
    mark: float,
) -> Row:
    queries, database = images[: settings.queries], images[settings.queries :]
    k = min(NEIGHBOURS, len(database))
    n_pairs = len(queries) * len(database)
    ranking, spent, memory = _search(queries, database, distance, k, settings.budget)
    thin = images.factor is not None
    checked = queries[: settings.full_sorts if thin else max(1, settings.full_sorts // 4)]
    works = peers(queries[:PEER_IMAGES], database[:PEER_IMAGES])
    times = side_by_side(works, settings.budget / 2)
    return Row(
        key,
        work,
        "pair",
        f"D = {images.dim}, {len(queries)} queries, {len(database):,} images; a peer compares every pair",
        Side("retrieval_geometry", spent.per(n_pairs)),
        tuple(
            Side(name, times[name].per(PEER_IMAGES**2), usable=bool(torch.as_tensor(each()).isfinite().all()))
            for name, each in works.items()
        ),
        mark=mark,
        evaluated=float(ranking.evaluated.double().mean()) / len(database),
        identical=_equals_full_sort(ranking, checked, database, distance, k),
        memory_mb=memory,
        note=f"compared with the full sort for {len(checked)} of the queries",
    )


def _search(
    queries: Gaussian, database: Gaussian, distance: str, k: int, budget: float
) -> tuple[Ranking, Timing, float | None]:
    """What a search finds, takes and needs; a search longer than the budget is done only once."""
    found = []

    def work() -> None:
        found.append(rank(queries, database, distance, k))

    started = time.process_time()
    memory = peak_memory_mb(work)
    if memory is None:
        work()
    seconds = time.process_time() - started
    if seconds < budget:
        return found[0], side_by_side({"ours": work}, budget)["ours"], memory
    return found[0], Timing.of([seconds]), memory


def _equals_full_sort(
    ranking: tuple[Tensor, Tensor], queries: Gaussian, database: Gaussian, distance: str, k: int
) -> bool:
    """Whether distances and indices are those of all pairs, sorted with ties in the order of the database."""
    every = DISTANCES[distance](queries, database).sort(dim=1, stable=True)
    values, indices = (part[: len(queries)] for part in ranking)
    return torch.equal(indices, every.indices[:, :k]) and torch.equal(values, every.values[:, :k])


def search_growth(settings: Settings) -> list[Curve]:
    """Seconds for a query against ever larger databases."""
    dim, points = min(64, settings.dim), min(32, settings.points)
    largest = max(settings.growth_databases)
    images = fit_gaussian(settings.inputs.draw(settings.queries + largest, points, dim, "fast"))
    queries = images[: settings.queries]
    shares = []

    def measure(size: int) -> dict[str, float]:
        database = images[settings.queries : settings.queries + size]
        k = min(NEIGHBOURS, size)
        ranking, spent, _ = _search(queries, database, "wasserstein2", k, settings.budget)
        shares.append(float(ranking.evaluated.double().mean()) / size)
        return {"ours": spent.per(len(queries)).seconds}

    work = f"top-{NEIGHBOURS} by 2-Wasserstein, D = {dim}"
    found = curve(
        "search_wasserstein-database",
        work,
        "images in the database",
        settings.growth_databases,
        measure,
        "query",
    )
    return [replace(found, evaluated=tuple(shares))]
