"""How the cost of a pair grows with dimensions, descriptors and components."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyriemann.geometry.distance import distance_logdet, distance_wasserstein, pairwise_distance

from benchmarks.kl import kl_of_normals, shrunk_gaussians, torch_normals
from benchmarks.measure import exponent, side_by_side, time_stages
from benchmarks.rows import Curve, Settings
from retrieval_geometry.distances import (
    affine_invariant_distance,
    mixture_wasserstein2_squared,
    stein_divergence,
    symmetric_kl,
    symmetric_variational_kl,
    wasserstein2_squared,
)
from retrieval_geometry.image_models import Gaussian, fit_gaussian

IMAGES = 16
MODULES = "retrieval_geometry.distances."


def curve(
    key: str,
    work: str,
    over: str,
    sizes: Sequence[int],
    measure: Callable[[int], Mapping[str, float]],
    unit: str = "pair",
) -> Curve:
    """Measure at every size, and fit a power of the size to the larger half of them."""
    found = [measure(size) for size in sizes]
    seconds = {name: tuple(at[name] for at in found) for name in found[0]}
    half = (len(sizes) - 1) // 2
    exponents = {name: exponent(sizes[half:], values[half:]) for name, values in seconds.items()}
    return Curve(key, work, over, tuple(sizes), seconds, exponents, unit)


def growth_curves(settings: Settings) -> list[Curve]:
    """All curves but those of the search."""
    return [*_over_dimensions(settings), _over_points(settings), *_over_components(settings)]


def _over_dimensions(settings: Settings) -> list[Curve]:
    def many(dim: int) -> Gaussian:
        return shrunk_gaussians(settings, settings.images, dim)

    def shrunk(dim: int) -> Gaussian:
        return shrunk_gaussians(settings, IMAGES, dim)

    def thin(dim: int) -> Gaussian:
        return fit_gaussian(settings.inputs.draw(IMAGES, settings.points, dim, "fast"))

    distances: list[
        tuple[str, str, str, Any, Callable[[int], Gaussian], Callable[[Gaussian, Gaussian], object]]
    ]
    distances = [
        ("symmetric_kl", "symmetric KL", "kl", symmetric_kl, many, _torch_kl),
        (
            "wasserstein_full_rank",
            "2-Wasserstein, full rank",
            "wasserstein",
            wasserstein2_squared,
            shrunk,
            _bures,
        ),
        ("wasserstein_low_rank", "2-Wasserstein", "wasserstein", wasserstein2_squared, thin, _bures),
        ("affine_invariant", "affine-invariant", "riemannian", affine_invariant_distance, shrunk, _riemann),
        ("stein", "Stein", "riemannian", stein_divergence, shrunk, _log_det),
    ]
    curves = []
    for key, work, module, distance, make, peer in distances:

        def measure(dim: int, module=module, distance=distance, make=make, peer=peer) -> dict[str, float]:  # type: ignore[no-untyped-def]
            g = make(dim)
            p, q = g[: len(g) // 2], g[len(g) // 2 :]
            _, ours = time_stages(
                MODULES + module, lambda: distance(p, q), len(g), len(p) * len(q), settings.budget / 2
            )
            works = {"peer": peer(p[:2], q[:2])}
            theirs = side_by_side(works, settings.budget / 2)["peer"].per(4)
            return {"ours": ours.seconds, "peer": theirs.seconds}

        curves.append(curve(f"{key}-dimensions", work, "dimensions", settings.growth_dims, measure))
    return curves


def _torch_kl(p: Gaussian, q: Gaussian) -> Callable[[], object]:
    a, b = torch_normals(p), torch_normals(q)
    return lambda: kl_of_normals(a, b)


def _bures(p: Gaussian, q: Gaussian) -> Callable[[], object]:
    # pyRiemann refuses singular covariances: they get a ridge.
    ridge = torch.eye(p.dim) * 1e-3 * p.cov.diagonal(dim1=1, dim2=2).mean()
    return lambda: distance_wasserstein(p.cov[:, None] + ridge, q.cov[None] + ridge)


def _riemann(p: Gaussian, q: Gaussian) -> Callable[[], object]:
    return lambda: pairwise_distance(p.cov, q.cov, metric="riemann")


def _log_det(p: Gaussian, q: Gaussian) -> Callable[[], object]:
    return lambda: distance_logdet(p.cov[:, None], q.cov[None], squared=True)


def _over_points(settings: Settings) -> Curve:
    def measure(points: int) -> dict[str, float]:
        g = fit_gaussian(settings.inputs.draw(IMAGES, points, settings.dim, "fast"))
        p, q = g[: IMAGES // 2], g[IMAGES // 2 :]
        work = lambda: wasserstein2_squared(p, q)  # noqa: E731
        _, time = time_stages(MODULES + "wasserstein", work, IMAGES, len(p) * len(q), settings.budget / 2)
        return {"ours": time.seconds}

    return curve(
        "wasserstein_low_rank-descriptors", "2-Wasserstein", "descriptors", settings.growth_points, measure
    )


def _over_components(settings: Settings) -> list[Curve]:
    distances = (
        ("variational_kl", "variational KL", symmetric_variational_kl),
        ("mixture_wasserstein", "mixture 2-Wasserstein", mixture_wasserstein2_squared),
    )
    curves = []
    for key, work, distance in distances:

        def measure(components: int, key: str = key, distance: Any = distance) -> dict[str, float]:
            mixtures = settings.inputs.mixtures(IMAGES, components, settings.dim)
            p, q = mixtures[: IMAGES // 2], mixtures[IMAGES // 2 :]
            _, time = time_stages(
                MODULES + key, lambda: distance(p, q), IMAGES, len(p) * len(q), settings.budget / 2
            )
            return {"ours": time.seconds}

        curves.append(curve(f"{key}-components", work, "components", settings.growth_components, measure))
    return curves
