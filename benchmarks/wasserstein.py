"""2-Wasserstein distance between Gaussians, one pair at a time and all of them, by any rank."""

from collections.abc import Callable
from functools import partial

import numpy as np
import ot
import torch
from pyriemann.geometry.distance import distance_wasserstein
from torch import Tensor

from benchmarks import reference
from benchmarks.measure import peak_memory_mb, relative_error, side_by_side, time_stages
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.distances import mixture_wasserstein2_squared, wasserstein2_squared
from retrieval_geometry.image_models import Gaussian, fit_gaussian

CHECKED = 2
RIDGE = 1e-3


def wasserstein_low_rank_row(settings: Settings) -> Row:
    """Fewer descriptors than dimensions: singular values of a small matrix."""
    x = settings.inputs.draw(min(settings.images, 32), settings.points, settings.dim)
    return _row(
        settings,
        fit_gaussian(x),
        fit_gaussian(x.double()),
        fit_gaussian(x, shrinkage=RIDGE),
        "wasserstein_low_rank",
        f"2-Wasserstein with means, {settings.points} descriptors",
        mark=28,
        note="the peers refuse singular covariances or return NaN, and are given others: "
        f"shrunk by {RIDGE:g}, which is what their error shows",
    )


def wasserstein_full_rank_row(settings: Settings) -> Row:
    """Covariances of full rank, as a collapsed mixture or a sparse matrix transform gives them."""
    g = settings.inputs.mixtures(min(settings.images, 16), settings.components, settings.dim).collapse()
    return _row(settings, g, g, g, "wasserstein_full_rank", "2-Wasserstein with means, full rank", mark=3)


def _row(
    settings: Settings,
    g: Gaussian,
    exact: Gaussian,
    for_peers: Gaussian,
    key: str,
    work: str,
    mark: float,
    note: str = "",
) -> Row:
    half = len(g) // 2
    p, q = g[:half], g[half:]
    prepare, compare = time_stages(
        "retrieval_geometry.distances.wasserstein",
        lambda: wasserstein2_squared(p, q),
        len(g),
        half * len(q),
        settings.budget,
    )
    first, second = slice(CHECKED), slice(half, half + CHECKED)
    wanted = reference.wasserstein2_squared(exact[first], exact[second])
    error = relative_error(wasserstein2_squared(g[first], g[second]), wanted)
    return Row(
        key,
        work,
        "pair",
        f"D = {g.dim}, {half} x {len(q)} images, float32 in",
        Side("retrieval_geometry", compare, error, prepare),
        wasserstein_peers(for_peers[first], for_peers[second], wanted, settings.budget),
        mark=mark,
        memory_mb=peak_memory_mb(lambda: wasserstein2_squared(p, q)),
        note=note,
    )


def wasserstein_peers(p: Gaussian, q: Gaussian, wanted: Tensor, budget: float) -> tuple[Side, ...]:
    """pyRiemann and POT, in numpy and in torch, on all pairs at once."""
    works = peer_works(p, q)
    times = side_by_side(works, budget)
    means = (p.mean.double().unsqueeze(1) - q.mean.double()).square().sum(dim=2)
    sides = []
    for name, work in works.items():
        squares = torch.as_tensor(work()).double().square()
        found = squares if name.startswith("POT") else squares + means
        sides.append(Side.checked(name, times[name].per(len(p) * len(q)), found, wanted))
    return tuple(sides)


def peer_works(p: Gaussian, q: Gaussian) -> dict[str, Callable[[], object]]:
    """What each peer is asked to do; pyRiemann's distance leaves out the means."""
    works: dict[str, Callable[[], object]] = {}
    for dtype in (torch.float32, torch.float64):
        g, h = p.to(dtype), q.to(dtype)
        name = str(dtype).removeprefix("torch.")
        works[f"pyRiemann, torch {name}"] = partial(distance_wasserstein, g.cov[:, None], h.cov[None])
        works[f"POT, torch {name}"] = partial(
            ot.gaussian.bures_wasserstein_distance, g.mean, h.mean, g.cov, h.cov
        )
    arrays = [part.double().numpy() for part in (p.mean, p.cov, q.mean, q.cov)]
    works["pyRiemann, numpy float64"] = partial(distance_wasserstein, arrays[1][:, None], arrays[3][None])
    works["POT, numpy float64"] = partial(_pot_numpy, *arrays)
    return works


def _pot_numpy(m: np.ndarray, a: np.ndarray, n: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One pair at a time: for batches POT multiplies three matrices in one einsum, at a cost of D^4."""
    distance = ot.gaussian.bures_wasserstein_distance
    return np.array(
        [
            [distance(left[0], right[0], left[1], right[1]) for right in zip(n, b, strict=True)]
            for left in zip(m, a, strict=True)
        ]
    )


def mixture_wasserstein_row(settings: Settings) -> Row:
    """Mixture-Wasserstein: exact transport between components, diagonal against POT's full covariances."""
    k = settings.components
    mixtures = settings.inputs.mixtures(min(settings.images, 16), k, settings.dim)
    half = len(mixtures) // 2
    p, q = mixtures[:half], mixtures[half:]
    prepare, compare = time_stages(
        "retrieval_geometry.distances.mixture_wasserstein",
        lambda: mixture_wasserstein2_squared(p, q),
        len(mixtures),
        half * len(q),
        settings.budget,
    )
    cost = reference.mixture_costs(p[:1], q[:1])
    weights = [m.weights[0].double().numpy() / m.weights[0].double().numpy().sum() for m in (p, q)]
    wanted = torch.tensor(ot.emd2(*weights, cost))
    return Row(
        "mixture_wasserstein",
        f"mixture 2-Wasserstein, {k} x {k} components",
        "pair",
        f"D = {settings.dim}, {half} x {len(q)} images; the peer at D = {settings.peer_mixture_dim}",
        Side(
            "retrieval_geometry, diagonal",
            compare,
            relative_error(mixture_wasserstein2_squared(p[:1], q[:1])[0, 0], wanted),
            prepare,
        ),
        (_mixture_peer(settings),),
        mark=10_000,
        note="the peer takes full covariances, at a smaller D: another interface, not one task",
    )


def _mixture_peer(settings: Settings) -> Side:
    """POT's distance, which roots a full matrix for every pair of components."""
    mixtures = settings.inputs.mixtures(2, settings.components, settings.peer_mixture_dim)
    p, q = mixtures[:1], mixtures[1:]
    arguments = [
        part.double().numpy()
        for part in (
            p.means[0],
            q.means[0],
            torch.diag_embed(p.variances[0]),
            torch.diag_embed(q.variances[0]),
            p.weights[0],
            q.weights[0],
        )
    ]
    arguments[4:] = [weights / weights.sum() for weights in arguments[4:]]
    found: list[float] = []
    work = {"POT, ot.gmm": lambda: found.append(float(ot.gmm.gmm_ot_loss(*arguments)))}
    time = side_by_side(work, settings.budget)["POT, ot.gmm"]
    wanted = torch.tensor(ot.emd2(*arguments[4:], reference.mixture_costs(p, q)))
    return Side.checked("POT, ot.gmm", time, torch.tensor(found[0]), wanted)
