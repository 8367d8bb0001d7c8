"""Kullback-Leibler divergences between Gaussians and between mixtures, all pairs."""

from collections.abc import Callable

import torch
from pyriemann.geometry.distance import distance_kullback_sym
from torch import Tensor
from torch.distributions import Categorical, Independent, MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl

from benchmarks import reference
from benchmarks.measure import peak_memory_mb, relative_error, side_by_side, time_stages
from benchmarks.rows import Row, Settings, Side
from retrieval_geometry.distances import symmetric_kl, symmetric_variational_kl
from retrieval_geometry.image_models import Gaussian, GaussianMixture, fit_gaussian

SHRINKAGE = 0.1
CHECKED = 3
FEW = 24


def shrunk_gaussians(settings: Settings, n: int, dim: int | None = None) -> Gaussian:
    """Gaussians of full rank, float32."""
    x = settings.inputs.draw(n, settings.points, dim or settings.dim)
    return fit_gaussian(x, shrinkage=SHRINKAGE)


def symmetric_kl_row(settings: Settings) -> Row:
    """Symmetric KL of all pairs, by one matrix product against one Cholesky solve a pair."""
    g = shrunk_gaussians(settings, settings.images)
    half = len(g) // 2
    p, q = g[:half], g[half:]
    prepare, compare = time_stages(
        "retrieval_geometry.distances.kl", lambda: symmetric_kl(p, q), len(g), half * len(q), settings.budget
    )
    few = p[:CHECKED], q[:CHECKED]
    wanted = reference.symmetric_kl(*few)
    normals, peers = torch_normals(few[0]), []
    works: dict[str, Callable[[], object]] = {
        "torch.distributions, Cholesky kept": lambda: kl_of_normals(normals, torch_normals_q),
        "pyRiemann, covariances only": lambda: distance_kullback_sym(
            few[0].cov[:, None].numpy(), few[1].cov[None].numpy()
        ),
        "preparation": lambda: torch_normals(few[0]),
    }
    torch_normals_q = torch_normals(few[1])
    times = side_by_side(works, settings.budget)
    setup = times.pop("preparation").per(CHECKED)
    error = relative_error(kl_of_normals(normals, torch_normals_q), wanted)
    for name, time in times.items():
        own = name.startswith("torch")
        peers.append(Side(name, time.per(CHECKED**2), error if own else None, setup if own else None))
    flops = 4.0 * (g.dim + 1) * (g.dim + 2) / 2
    return Row(
        "symmetric_kl",
        "symmetric KL with means, all pairs",
        "pair",
        f"D = {g.dim}, {half} x {len(q)} images, float32",
        Side("retrieval_geometry", compare, relative_error(symmetric_kl(*few), wanted), prepare),
        tuple(peers),
        mark=2000,
        memory_mb=peak_memory_mb(lambda: symmetric_kl(p, q)),
        gemm_share=flops / compare.seconds / settings.gemm_rate,
    )


def few_pairs_row(settings: Settings) -> Row:
    """Symmetric KL of one image from a few others, preparation and all, as torch does it one by one."""
    g = shrunk_gaussians(settings, 1 + FEW)
    p, q = g[:1], g[1:]
    doubles = p.to(torch.float64), q.to(torch.float64)
    ours = "retrieval_geometry"
    works: dict[str, Callable[[], Tensor]] = {
        ours: lambda: symmetric_kl(p, q),
        "torch.distributions, float32": lambda: kl_of_normals(torch_normals(p), torch_normals(q)),
        "torch.distributions, float64": lambda: kl_of_normals(*map(torch_normals, doubles)),
    }
    times = side_by_side(works, settings.budget)
    wanted = reference.symmetric_kl(p, q)
    sides = {name: Side(name, times[name].per(FEW), relative_error(works[name](), wanted)) for name in works}
    return Row(
        "symmetric_kl_few",
        "symmetric KL, one image against a few, all that it takes",
        "pair",
        f"D = {g.dim}, 1 x {FEW} images, float32",
        sides.pop(ours),
        tuple(sides.values()),
        mark=1,
    )


def torch_normals(g: Gaussian) -> list[MultivariateNormal]:
    """The images as torch's distributions, which keep their Cholesky factors."""
    return [MultivariateNormal(m, c, validate_args=False) for m, c in zip(g.mean, g.cov, strict=True)]


def kl_of_normals(p: list[MultivariateNormal], q: list[MultivariateNormal]) -> Tensor:
    """Symmetric KL of all pairs, one after the other."""
    return torch.stack([torch.stack([(torch_kl(a, b) + torch_kl(b, a)) / 2 for b in q]) for a in p])


def variational_kl_row(settings: Settings) -> Row:
    """Symmetric variational KL of mixtures, by matrix products against torch's divergences of components."""
    k, dim = settings.components, settings.dim
    mixtures = settings.inputs.mixtures(settings.images, k, dim)
    half = len(mixtures) // 2
    p, q = mixtures[:half], mixtures[half:]
    prepare, compare = time_stages(
        "retrieval_geometry.distances.variational_kl",
        lambda: symmetric_variational_kl(p, q),
        len(mixtures),
        half * len(q),
        settings.budget,
    )
    wanted = reference.symmetric_variational_kl(p[:CHECKED], q[:CHECKED])
    ours = symmetric_variational_kl(p[:CHECKED], q[:CHECKED])
    theirs = TorchVariational(p[0]), TorchVariational(q[0])
    name = "torch.distributions, own terms kept"
    works = {name: lambda: theirs[0].to(theirs[1]), "preparation": lambda: TorchVariational(p[0])}
    times = side_by_side(works, settings.budget)
    flops = 2 * 2.0 * k * k * 2 * dim
    return Row(
        "variational_kl",
        f"symmetric variational KL, {k} diagonal components",
        "pair",
        f"D = {dim}, {half} x {len(q)} images, float32",
        Side("retrieval_geometry", compare, relative_error(ours, wanted), prepare),
        (
            Side(
                name, times[name], relative_error(theirs[0].to(theirs[1]), wanted[0, 0]), times["preparation"]
            ),
        ),
        mark=100,
        memory_mb=peak_memory_mb(lambda: symmetric_variational_kl(p, q)),
        gemm_share=flops / compare.seconds / settings.gemm_rate,
    )


class TorchVariational:
    """One mixture with the half of [geometric] eq. 10 that belongs to it alone, by torch's distributions."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.weights = mixture.weights[0]
        self.log_weights = Categorical(self.weights, validate_args=False).logits
        self.rows, self.columns = (
            Independent(
                Normal(
                    mixture.means[0].unsqueeze(axis),
                    mixture.variances[0].sqrt().unsqueeze(axis),
                    validate_args=False,
                ),
                1,
                validate_args=False,
            )
            for axis in (1, 0)
        )
        self.own = self.cross(self)

    def cross(self, other: "TorchVariational") -> Tensor:
        """The weighted sum of the logarithms of eq. 10's sums, over the components of the other."""
        terms = other.log_weights - torch_kl(self.rows, other.columns)
        return (self.weights * terms.logsumexp(dim=1)).sum()

    def to(self, other: "TorchVariational") -> Tensor:
        """The symmetric variational KL."""
        return (self.own - self.cross(other) + other.own - other.cross(self)) / 2
