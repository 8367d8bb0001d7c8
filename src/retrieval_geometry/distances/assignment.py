"""Exact transport between sets of equally many, equally heavy points: an assignment."""

import torch
from torch import Tensor

from retrieval_geometry.distances._point_transport import chunk_size, pair_costs
from retrieval_geometry.distances.sinkhorn import check_points


def exact_transport_cost(x: Tensor, y: Tensor, p: int = 1) -> Tensor:
    r"""Exact :math:`W_p^p` of each pair of point sets of one size, all points of the same mass.

    .. math:: W_p^p(x, y) = \min_\sigma \frac1n \sum_i \|x_i - y_{\sigma(i)}\|^p

    Source: [wasserstein-dml] eq. 3 without its entropy; Peyré and Cuturi 2019. Derived in chapter 11.

    The Sinkhorn divergence stands in for this cost. Among equal masses an optimal plan is a permutation
    (Birkhoff), found by linear assignment in :math:`O(n^3)`; the gradient is that of its cost.

    Args:
        x: ``(B, n, d)``.
        y: ``(B, n, d)``.
        p: 1 or 2, the power of the Euclidean distance.

    Returns:
        ``(B,)``, units of the points to the power p.

    Raises:
        ValueError: the sets differ in number or size, shapes, dtypes or devices do not go together, a value
            is not finite or out of the range of :func:`sinkhorn_divergence`, or ``p`` is out of range.

    Example:
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[4.0], [3.0]]])
        >>> exact_transport_cost(x, y, p=2).round(decimals=3)  # each point moves by 3
        tensor([9.])
    """
    _check(x, y, p)
    if len(x) != len(y):
        raise ValueError(
            f"x and y must hold the same number of sets, got {len(x)} and {len(y)}; "
            "pairwise_exact_transport_cost compares each with each"
        )
    each = torch.arange(len(x), device=x.device)
    return _matched_costs(x, y, each, each, p)


def pairwise_exact_transport_cost(x: Tensor, y: Tensor, p: int = 1) -> Tensor:
    """Exact cost of every set of x from every set of y; see :func:`exact_transport_cost`.

    Source: [wasserstein-dml] eq. 3 without its entropy; Peyré and Cuturi 2019. Derived in chapter 11.

    Where ``y`` is ``x`` (the same object) each pair is computed once.

    Args:
        x: ``(P, n, d)``.
        y: ``(Q, n, d)``.
        p: 1 or 2.

    Returns:
        ``(P, Q)``.

    Raises:
        ValueError: as :func:`exact_transport_cost`.
    """
    _check(x, y, p)
    pairs = torch.ones(len(x), len(y), dtype=torch.bool, device=x.device)
    left, right = (pairs.triu(1) if y is x else pairs).nonzero().unbind(1)
    costs = x.new_zeros(pairs.shape).index_put((left, right), _matched_costs(x, y, left, right, p))
    return costs + costs.mT if y is x else costs


def _check(x: Tensor, y: Tensor, p: int) -> None:
    check_points(x, y, p)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must be sets of one size, got {x.shape[1]} and {y.shape[1]} points; "
            "sinkhorn_divergence compares sets of any sizes"
        )


def _matched_costs(x: Tensor, y: Tensor, left: Tensor, right: Tensor, p: int) -> Tensor:
    """Costs ``(B,)`` of the best permutations of ``y[right]`` on ``x[left]``."""
    size = chunk_size(8 * x.shape[1] ** 2, x.device)
    parts = [
        _matched_cost(x, y, *indices, p)
        for indices in zip(left.split(size), right.split(size), strict=True)
        if len(indices[0])
    ]
    return torch.cat(parts) if parts else x.new_zeros(0)


def _matched_cost(x: Tensor, y: Tensor, left: Tensor, right: Tensor, p: int) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # slow to import

    costs = pair_costs(x, y, left, right, p, symmetric=False).cpu().numpy()
    # Hungarian method, one pair of sets after the other: SciPy's has no batches.
    matches = torch.stack([torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in costs])
    # The permutation is constant around x and y: the cost of its pairs has the right gradient.
    places = matches.to(x.device).unsqueeze(2).expand(-1, -1, x.shape[2])
    gaps = x[left] - y[right].gather(1, places)
    return torch.linalg.vector_norm(gaps, dim=2).pow(p).mean(dim=1)
