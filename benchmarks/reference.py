"""The formulas as they are printed, pair by pair in float64: what errors are measured against."""

import numpy as np
import torch
from torch import Tensor

from retrieval_geometry.image_models import Gaussian, GaussianMixture


def symmetric_kl(p: Gaussian, q: Gaussian) -> Tensor:
    """[geometric] eq. 7, both directions, pair by pair."""
    values = torch.empty(len(p), len(q), dtype=torch.float64)
    for i, (m, a) in enumerate(zip(p.mean.double(), p.cov.double(), strict=True)):
        for j, (n, b) in enumerate(zip(q.mean.double(), q.cov.double(), strict=True)):
            inverses = [torch.cholesky_inverse(torch.linalg.cholesky(cov)) for cov in (a, b)]
            trace = (inverses[1] * a).sum() + (inverses[0] * b).sum() - 2 * p.dim
            values[i, j] = (trace + (m - n) @ (inverses[0] + inverses[1]) @ (m - n)) / 4
    return values


def wasserstein2_squared(p: Gaussian, q: Gaussian) -> Tensor:
    """[geometric] eq. 13 by symmetric square roots: the fidelity is the nuclear norm of their product."""
    roots_p, roots_q = ([_root(cov) for cov in g.cov.double()] for g in (p, q))
    fidelity = torch.stack(
        [torch.stack([torch.linalg.svdvals(a @ b).sum() for b in roots_q]) for a in roots_p]
    )
    traces = [g.cov.double().diagonal(dim1=1, dim2=2).sum(dim=1) for g in (p, q)]
    means = (p.mean.double().unsqueeze(1) - q.mean.double()).square().sum(dim=2)
    return means + traces[0].unsqueeze(1) + traces[1] - 2 * fidelity


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    rounding = len(cov) * torch.finfo(cov.dtype).eps * values[-1]
    return (vectors * torch.where(values > rounding, values, 0.0).sqrt()) @ vectors.mT


def affine_invariant_distance(p: Gaussian, q: Gaussian) -> Tensor:
    """[geometric] eq. 14 by symmetric square roots."""
    values = torch.empty(len(p), len(q), dtype=torch.float64)
    for i, a in enumerate(p.cov.double()):
        spectrum, vectors = torch.linalg.eigh(a)
        whitener = (vectors * spectrum.rsqrt()) @ vectors.mT
        for j, b in enumerate(q.cov.double()):
            values[i, j] = torch.linalg.eigvalsh(whitener @ b @ whitener).log().square().sum().sqrt()
    return values


def stein_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    """Log-determinants by eigenvalues."""

    def volume(cov: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(cov).log().sum(dim=-1)

    a, b = p.cov.double(), q.cov.double()
    return torch.stack([volume((m + b) / 2) - (volume(m) + volume(b)) / 2 for m in a])


def symmetric_variational_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """[geometric] eq. 10, both directions, component by component."""

    def similarity(a: GaussianMixture, b: GaussianMixture) -> Tensor:
        v, w = a.variances[0].double().unsqueeze(1), b.variances[0].double()
        gap = (a.means[0].double().unsqueeze(1) - b.means[0].double()).square()
        divergence = (v / w - 1 - (v / w).log() + gap / w).sum(dim=2) / 2
        return (b.weights[0].double().log() - divergence).logsumexp(dim=1)

    def one_way(a: GaussianMixture, b: GaussianMixture) -> Tensor:
        return (a.weights[0].double() * (similarity(a, a) - similarity(a, b))).sum()

    pairs = [[(one_way(p[i], q[j]) + one_way(q[j], p[i])) / 2 for j in range(len(q))] for i in range(len(p))]
    return torch.stack([torch.stack(row) for row in pairs])


def mixture_costs(p: GaussianMixture, q: GaussianMixture) -> np.ndarray:
    """Squared 2-Wasserstein distances of the diagonal components of two mixtures, ``(K, L)``."""
    gaps = p.means[0].double().unsqueeze(1) - q.means[0].double()
    spreads = p.variances[0].double().sqrt().unsqueeze(1) - q.variances[0].double().sqrt()
    return (gaps.square() + spreads.square()).sum(dim=2).numpy()


def entropic_cost(cost: Tensor, epsilon: float, iterations: int = 20_000) -> Tensor:
    """Entropic transport costs ``(B,)`` between uniform measures, iterated to convergence.

    Sinkhorn's iterations in the logarithmic domain and float64, until the marginals hold to 1e-9. By the
    envelope theorem the last plan gives the gradient with respect to the cost.
    """
    n, m = cost.shape[1:]
    fixed = cost.detach().double() / epsilon
    f, g = fixed.new_zeros(len(fixed), n), fixed.new_zeros(len(fixed), m)
    for step in range(iterations):
        f = np.log(m) - (g.unsqueeze(1) - fixed).logsumexp(dim=2)
        g = np.log(n) - (f.unsqueeze(2) - fixed).logsumexp(dim=1)
        if step % 50 == 0:
            plan = (f.unsqueeze(2) + g.unsqueeze(1) - fixed).exp() / (n * m)
            if float((plan.sum(dim=2) - 1 / n).abs().sum(dim=1).max()) < 1e-9:
                break
    plan = (f.unsqueeze(2) + g.unsqueeze(1) - fixed).exp() / (n * m)
    value = epsilon * (f.mean(dim=1) + g.mean(dim=1))
    # The value of the fixed potentials, with the plan as its derivative by the cost.
    return value + (plan * (cost.double() - cost.detach().double())).sum(dim=(1, 2))


def sinkhorn_divergence(x: Tensor, y: Tensor, p: int, epsilon: float) -> Tensor:
    """Debiased entropic transport of each pair ``(B, n, d)``, ``(B, m, d)``, differentiable."""

    def costs(a: Tensor, b: Tensor) -> Tensor:
        squares = (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(dim=3)
        return squares if p == 2 else (squares + 1e-24).sqrt()

    crossed, left, right = (entropic_cost(costs(a, b), epsilon) for a, b in ((x, y), (x, x), (y, y)))
    return crossed - left / 2 - right / 2
