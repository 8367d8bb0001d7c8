"""Claims of [geometric] that are mathematics, each decided by a small computation with the package."""

import math

import torch
from torch import Tensor

from retrieval_geometry.distances import (
    affine_invariant_distance,
    stein_divergence,
    symmetric_kl,
    wasserstein2,
)
from retrieval_geometry.image_models import Gaussian, fit_gaussian, smt_covariance
from retrieval_geometry.reporting.claims import Results
from retrieval_geometry.reporting.findings import Computed, Finding, every


def _finding(holds: bool, evidence: str) -> Finding:
    return every([Computed(holds, evidence)])


def kl_diverges_wasserstein_does_not(results: Results) -> Finding:
    """One variance of the second distribution goes to zero; both distances are computed by the package."""
    variances = torch.tensor([1e-2, 1e-6, 1e-10], dtype=torch.float64)
    mean = torch.zeros(3, 2, dtype=torch.float64)
    thin = Gaussian(mean, torch.diag_embed(torch.stack([torch.ones_like(variances), variances], dim=1)))
    round_ = Gaussian(mean[:1], torch.eye(2, dtype=torch.float64)[None])
    # The limit is a singular covariance: KL needs its inverse, the Wasserstein distance only its root.
    kl, distance = symmetric_kl(round_, thin)[0], wasserstein2(round_, thin)[0]
    # KL grows as 1 / variance, 10^4 a step; the Wasserstein distance of these two is 1 at most.
    holds = bool((kl[1:] > 100 * kl[:-1]).all() and (distance <= 1).all())
    evidence = (
        f"as a variance falls to 1e-10, KL grows to {float(kl[-1]):.1e}, "
        f"the Wasserstein distance to {float(distance[-1]):.2f}"
    )
    return _finding(holds, evidence)


def riemannian_is_invariant(results: Results) -> Finding:
    """One image rescaled against both images moved by one common affine map."""
    p, q, g = _two_covariances()
    zero = torch.zeros(1, 3, dtype=torch.float64)

    def distance(a: Tensor, b: Tensor) -> float:
        return float(affine_invariant_distance(Gaussian(zero, a[None]), Gaussian(zero, b[None])))

    # A map g of descriptors takes S to g S g': a theorem for one map of both, none for a map of one.
    before, common, alone = distance(p, q), distance(g @ p @ g.mT, g @ q @ g.mT), distance(4 * p, q)
    evidence = f"distance {before:.3f}; both images mapped alike {common:.3f}; one image rescaled {alone:.3f}"
    return _finding(math.isclose(before, alone, rel_tol=1e-6), evidence)


def stein_is_affine_invariant(results: Results) -> Finding:
    """The same common map, under Stein's divergence."""
    p, q, g = _two_covariances()
    zero = torch.zeros(1, 3, dtype=torch.float64)
    before = float(stein_divergence(Gaussian(zero, p[None]), Gaussian(zero, q[None])))
    after = float(
        stein_divergence(Gaussian(zero, (g @ p @ g.mT)[None]), Gaussian(zero, (g @ q @ g.mT)[None]))
    )
    # Stein sees eigenvalues of q^-1 p alone, and a common congruence keeps these.
    evidence = f"divergence {before:.4f} before and {after:.4f} after one affine map of both images"
    return _finding(math.isclose(before, after, rel_tol=1e-6), evidence)


def _two_covariances() -> tuple[Tensor, Tensor, Tensor]:
    """Two covariances and an invertible map, three dimensions, float64."""
    p = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.5]], dtype=torch.float64)
    q = torch.tensor([[1.0, -0.2, 0.1], [-0.2, 0.7, 0.0], [0.1, 0.0, 3.0]], dtype=torch.float64)
    g = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0], [0.5, 0.0, 2.0]], dtype=torch.float64)
    return p, q, g


def smt_has_full_rank(results: Results) -> Finding:
    """Fewer descriptors than dimensions: the sample covariance is singular, the SMT covariance is not."""
    x = torch.randn(1, 10, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample, sparse = (torch.linalg.eigvalsh(g.cov[0]) for g in (fit_gaussian(x), smt_covariance(x)))
    # Ten centred descriptors span nine dimensions: the other eigenvalues are rounding, not exact zeros.
    rank = int((sample > 1e-9 * sample[-1]).sum())
    evidence = f"10 descriptors in 20 dimensions: rank {rank}; with SMT least eigenvalue {sparse[0]:.2f}"
    return _finding(bool(sparse[0] > 1e-3) and rank < 20, evidence)
