"""Affine-invariant distance and Stein divergence, one pair at a time."""

from collections.abc import Callable
from functools import partial

import torch
from pyriemann.geometry.distance import distance_logdet, distance_riemann, pairwise_distance
from torch import Tensor

from benchmarks import reference
from benchmarks.kl import shrunk_gaussians
from benchmarks.measure import peak_memory_mb, relative_error, side_by_side, time_stages
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.distances import affine_invariant_distance, stein_divergence
from retrieval_geometry.image_models import Gaussian

CHECKED = 2
MODULE = "retrieval_geometry.distances.riemannian"

Works = dict[str, Callable[[], object]]
Distance = Callable[[Gaussian, Gaussian], Tensor]


def affine_invariant_row(settings: Settings) -> Row:
    """Eigenvalues of a whitened covariance."""
    return _row(
        settings,
        "affine_invariant",
        "affine-invariant distance",
        affine_invariant_distance,
        reference.affine_invariant_distance,
        affine_invariant_peers,
        mark=2.3,
    )


def stein_row(settings: Settings) -> Row:
    """Log-determinant of the mean of two covariances."""
    return _row(
        settings,
        "stein",
        "Stein divergence",
        stein_divergence,
        reference.stein_divergence,
        stein_peers,
        mark=4.5,
    )


def affine_invariant_peers(p: Gaussian, q: Gaussian) -> Works:
    """All pairs by pyRiemann, which keeps what it can of the first image."""
    works: Works = {}
    for name, a, b in _precisions(p, q):
        works[f"pyRiemann, torch {name}"] = partial(pairwise_distance, a, b, metric="riemann")
    arrays = [g.cov.double().numpy() for g in (p, q)]
    works["pyRiemann, numpy float64"] = partial(distance_riemann, arrays[0][:, None], arrays[1][None])
    return works


def stein_peers(p: Gaussian, q: Gaussian) -> Works:
    """All pairs at once by pyRiemann."""
    works: Works = {}
    for name, a, b in _precisions(p, q):
        works[f"pyRiemann, torch {name}"] = partial(distance_logdet, a[:, None], b[None], squared=True)
    arrays = [g.cov.double().numpy() for g in (p, q)]
    works["pyRiemann, numpy float64"] = partial(
        distance_logdet, arrays[0][:, None], arrays[1][None], squared=True
    )
    return works


def _precisions(p: Gaussian, q: Gaussian) -> list[tuple[str, Tensor, Tensor]]:
    return [
        (name, p.cov.to(dtype), q.cov.to(dtype))
        for name, dtype in (("float32", torch.float32), ("float64", torch.float64))
    ]


def _row(
    settings: Settings,
    key: str,
    work: str,
    distance: Distance,
    plain: Distance,
    peers: Callable[[Gaussian, Gaussian], Works],
    mark: float,
) -> Row:
    g = shrunk_gaussians(settings, min(settings.images, 16))
    half = len(g) // 2
    p, q = g[:half], g[half:]
    prepare, compare = time_stages(MODULE, lambda: distance(p, q), len(g), half * len(q), settings.budget)
    few = p[:CHECKED], q[:CHECKED]
    wanted, works = plain(*few), peers(*few)
    times = side_by_side(works, settings.budget)
    return Row(
        key,
        work,
        "pair",
        f"D = {g.dim}, {half} x {len(q)} images, float32 in",
        Side("retrieval_geometry", compare, relative_error(distance(*few), wanted), prepare),
        tuple(
            Side.checked(name, times[name].per(CHECKED**2), torch.as_tensor(works[name]()), wanted)
            for name in works
        ),
        mark=mark,
        memory_mb=peak_memory_mb(lambda: distance(p, q)),
    )
