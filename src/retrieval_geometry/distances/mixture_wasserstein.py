"""Wasserstein-type distance between mixtures: exact transport between their components."""

import math

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs
from retrieval_geometry.distances._certified import in_dtype
from retrieval_geometry.distances._mixtures import check_mixtures, pooled_scale
from retrieval_geometry.image_models import GaussianMixture

CANCELLED = 1e-8
"""A squared difference over the squares, below which a product has too few digits for it."""


def mixture_wasserstein2_squared(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Squared mixture-Wasserstein distance of every p from every q.

    .. math:: \mathrm{MW}_2^2(p, q) = \min_{\pi \in \Pi(\omega, \omega')} \sum_{ab} \pi_{ab} \left[
              \|\mu_a - \mu_b\|^2 + \sum_d (\sqrt{v_{ad}} - \sqrt{v_{bd}})^2 \right]

    Source: Delon and Desolneux 2020. Derived in chapter 3.

    The transport plans are restricted to mixtures, so it is an upper bound of the squared 2-Wasserstein
    distance of the mixtures; its root is a metric. Between diagonal components the inner distance is
    Euclidean in means and standard deviations; the network simplex of POT solves the outer problem exactly.
    The rest of the batch changes a cost by at most 1e-6 of itself.

    Args:
        p: P mixtures of K diagonal components in D dimensions.
        q: Q mixtures of L components.

    Returns:
        ``(P, Q)``, squared units of the descriptors, at least 0. The gradient is that of the optimal plan's
        cost, and the optimal dual for the weights.

    Raises:
        ValueError: not mixtures, ``p`` and ``q`` differ in dimension, dtype or device, float64 descriptors
            are outside 1e-130 to 1e130 (the image is named), or a distance is too large for the dtype (the
            pair is).
        RuntimeError: the network simplex did not reach the optimum.

    Example:
        >>> p, q = (
        ...     GaussianMixture(torch.ones(1, 1), torch.zeros(1, 1, 1), torch.full((1, 1, 1), v))
        ...     for v in (1.0, 9.0)
        ... )
        >>> mixture_wasserstein2_squared(p, q).round(decimals=3)  # (3 - 1)^2
        tensor([[4.]])
    """
    check_mixtures(p, q)
    centre, _ = pooled_scale(p, q)

    def prepare(mixture: GaussianMixture, side: str, start: int) -> tuple[Tensor, Tensor]:
        weights = mixture.weights.double()
        spread = mixture.variances.double().sqrt()
        # W2 of diagonal Gaussians is Euclidean in (mean, standard deviation).
        position = torch.cat([mixture.means.double() - centre, spread], dim=2)
        return weights / weights.sum(dim=1, keepdim=True), position

    n_components = max(p.n_components, q.n_components)
    bytes_per_image = 32 * n_components * (p.dim + 1)
    values = all_pairs(p, q, prepare, _transport_block, bytes_per_image, torch.float64)
    return in_dtype(values, p.dtype, "squared distance")


def _transport_block(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    rows = []
    right_square = b[1].square().sum(dim=2).unsqueeze(1)
    for weights, position in zip(*a, strict=True):
        own = position.square().sum(dim=1)[None, :, None] + right_square
        cost = own - 2 * position @ b[1].mT  # |x|^2 + |y|^2 - 2 x y of all pairs of components
        # Where the difference cancels, it is taken entry by entry.
        which, i, j = (cost <= CANCELLED * own).nonzero(as_tuple=True)
        if len(which):
            exact = (position[i] - b[1][which, j]).square().sum(dim=1)
            cost = cost.index_put((which, i, j), exact)
        rows.append(
            torch.stack([_exact_transport(weights, *other) for other in zip(b[0], cost, strict=True)])
        )
    return torch.stack(rows)


def _exact_transport(a: Tensor, b: Tensor, cost: Tensor) -> Tensor:
    """Exact transport cost; its gradient is the optimal plan for the cost, the dual for the masses."""
    import ot  # slow to import

    # The simplex knows no scale: costs of the size of one, by a power of two.
    largest = float(cost.detach().amax())
    unit = 2.0 ** math.floor(math.log2(largest)) if largest > 0 else 1.0
    masses_and_cost = (t.detach().cpu().numpy() for t in (a, b, cost / unit))
    plan, log = ot.emd(*masses_and_cost, numItermax=10_000_000, log=True)
    if log["warning"]:
        raise RuntimeError(f"the network simplex gave no optimum: {log['warning']}")
    if not any(t.requires_grad for t in (a, b, cost)):
        return torch.as_tensor(unit * log["cost"], dtype=cost.dtype, device=cost.device)
    plan, u, v = (torch.as_tensor(part).to(cost) for part in (plan, log["u"], log["v"]))
    # Envelope theorem: the plan for the cost, the dual potentials for the masses; both are constants here.
    return (plan * cost).sum() + unit * ((u * (a - a.detach())).sum() + (v * (b - b.detach())).sum())
