"""Debiased entropic transport (Sinkhorn divergence) between sets of descriptors."""

import torch
from torch import Tensor

from retrieval_geometry._check import (
    check_finite,
    check_floating,
    check_number,
    check_same_kind,
    check_shape,
)
from retrieval_geometry.distances._entropic import EntropicCost
from retrieval_geometry.distances._gaussians import safe_sqrt

CHUNK = {"cpu": 2**21, "cuda": 2**28}
"""Bytes of one cost matrix in a chunk of problems: a CPU's cache, or a share of a GPU's memory."""


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    p: int = 1,
    epsilon: float = 0.05,
) -> Tensor:
    r"""Sinkhorn divergence of each pair of point sets ([wasserstein-dml] eqs. 3-4, errata 2.1).

    .. math:: S_\varepsilon(\alpha, \beta) &= \mathrm{OT}_\varepsilon(\alpha, \beta)
              - \tfrac12 \mathrm{OT}_\varepsilon(\alpha, \alpha)
              - \tfrac12 \mathrm{OT}_\varepsilon(\beta, \beta) \\
              \mathrm{OT}_\varepsilon(\alpha, \beta) &= \min_{\pi} \langle \pi, \|x - y\|^p \rangle
              + \varepsilon\, \mathrm{KL}(\pi \| a \otimes b)

    What is debiased is the p-th power of the distance, and no root is taken: for p = 2 the result is a
    squared distance. It is at least 0, and 0 where the measures agree (Feydy et al. 2019). The plans are
    computed to convergence in float64; the gradient comes from the envelope theorem, not from the
    iterations.

    Other libraries: ``ot.solve(M, a, b, reg=epsilon, reg_type="KL")`` has the same :math:`\mathrm{OT}`.
    GeomLoss halves the square: its ``SamplesLoss("sinkhorn", p=2, blur=s)`` is half of ours at
    :math:`\varepsilon = 2 s^2`; for p = 1 both agree at :math:`\varepsilon = s`.

    Args:
        x: ``(B, n, d)``.
        y: ``(B, m, d)``.
        a: masses of the points of x, ``(B, n)`` or ``(n,)``, each set summing to 1; uniform by default.
        b: masses of the points of y, ``(B, m)`` or ``(m,)``.
        p: 1 or 2, the power of the Euclidean distance.
        epsilon: strength of the regularisation, in units of the cost.

    Returns:
        ``(B,)``, units of the points to the power p.

    Raises:
        ValueError: shapes, dtypes or devices do not go together, a value is not finite, masses are negative
            or do not sum to 1, or ``p`` or ``epsilon`` is out of range.

    Example:
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[[3.0], [4.0]]])
        >>> sinkhorn_divergence(x, y, p=2)  # a shift by 3
        tensor([9.])
    """
    a, b = _check_measures(x, y, a, b, p, epsilon)
    if len(x) != len(y):
        raise ValueError(
            f"x and y must hold the same number of sets, got {len(x)} and {len(y)}; "
            "pairwise_sinkhorn_divergence compares each with each"
        )
    own = _paired_costs(x, x, a, a, p, epsilon) + _paired_costs(y, y, b, b, p, epsilon)
    return (_paired_costs(x, y, a, b, p, epsilon) - own / 2).clamp_min(0).to(x.dtype)


def pairwise_sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    a: Tensor | None = None,
    b: Tensor | None = None,
    p: int = 1,
    epsilon: float = 0.05,
) -> Tensor:
    """Sinkhorn divergence of every set of x from every set of y, as :func:`sinkhorn_divergence`.

    The self terms are computed once a set. Where ``y`` is ``x`` (the same object) and no masses are given,
    each pair is computed once.

    Args:
        x: ``(P, n, d)``.
        y: ``(Q, m, d)``.
        a: masses of the points of x, ``(P, n)`` or ``(n,)``; uniform by default.
        b: masses of the points of y, ``(Q, m)`` or ``(m,)``.
        p: 1 or 2, the power of the Euclidean distance.
        epsilon: strength of the regularisation, in units of the cost.

    Returns:
        ``(P, Q)``.

    Raises:
        ValueError: as :func:`sinkhorn_divergence`.
    """
    same = y is x and a is None and b is None
    a, b = _check_measures(x, y, a, b, p, epsilon)
    if not (len(x) and len(y)):
        return x.new_zeros(len(x), len(y))
    own_x = _paired_costs(x, x, a, a, p, epsilon)
    own_y = own_x if same else _paired_costs(y, y, b, b, p, epsilon)
    n_x, n_y, d = x.shape[1], y.shape[1], x.shape[2]
    rows = []
    size = _chunk(x.device, n_x * n_y * max(1, len(y)))
    for i in (slice(start, start + size) for start in range(0, len(x), size)):
        cost = _costs(x[i].reshape(1, -1, d), y.reshape(1, -1, d), p)
        cost = cost.view(-1, n_x, len(y), n_y).transpose(1, 2)
        keep = torch.ones(cost.shape[:2], dtype=torch.bool, device=x.device)
        if same:
            keep = keep.triu(i.start + 1)
        left, right = a[i].unsqueeze(1).expand(-1, len(y), -1), b.expand(cost.shape[0], -1, -1)
        values = _entropic_costs(cost[keep], left[keep], right[keep], epsilon, x.dtype)
        rows.append(values.new_zeros(keep.shape).masked_scatter(keep, values))
    crossed = torch.cat(rows)
    if same:
        crossed = crossed + crossed.mT + torch.diag_embed(own_x)
    return (crossed - (own_x.unsqueeze(1) + own_y) / 2).clamp_min(0).to(x.dtype)


def _check_measures(
    x: Tensor, y: Tensor, a: Tensor | None, b: Tensor | None, p: int, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Refuse bad points, settings and masses; return the masses in float64."""
    for name, points in (("x", x), ("y", y)):
        check_shape(
            check_floating(points, name), name, (len(points) if points.ndim else 0, "points", "dimensions")
        )
        check_finite(points, name)
    check_same_kind([x, y], "x and y")
    check_shape(y, "y", (len(y), "points", x.shape[2]))
    if isinstance(p, bool) or p not in (1, 2):
        raise ValueError(f"p must be one of 1, 2; got {p!r}")
    check_number(epsilon, "epsilon", above=0)
    return _check_masses(a, x, "a"), _check_masses(b, y, "b")


def _check_masses(masses: Tensor | None, points: Tensor, name: str) -> Tensor:
    n_sets, n_points = points.shape[:2]
    if masses is None:
        return torch.full((n_sets, n_points), 1 / n_points, dtype=torch.float64, device=points.device)
    check_floating(masses, name)
    check_shape(masses, name, (n_points,) if masses.ndim == 1 else (n_sets, n_points))
    check_same_kind([points, masses], f"points and {name}")
    masses = masses.expand(n_sets, n_points).double()
    total = masses.sum(dim=1, keepdim=True)
    wrong = ~((masses >= 0).all(dim=1) & ((total.squeeze(1) - 1).abs() < 1e-3))
    if wrong.any():
        image = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} of set {image} must be non-negative masses that sum to 1; divide by their sum"
        )
    return masses / total


def _costs(x: Tensor, y: Tensor, p: int) -> Tensor:
    """Distances to the power p by a matrix product, centred, in float64; its gradient is products too."""
    x, y = x.double(), y.double()
    centre = x.detach().mean(dim=1, keepdim=True)
    x, y = x - centre, y - centre
    size = x.square().sum(dim=2).unsqueeze(2) + y.square().sum(dim=2).unsqueeze(1)
    square = torch.baddbmm(size, x, y.mT, alpha=-2)
    # What is left of equal points is rounding, and its root would be a distance of 1e-8.
    square = torch.where(square > 1e-14 * size.detach(), square, 0.0)
    return square if p == 2 else safe_sqrt(square)


def _paired_costs(x: Tensor, y: Tensor, a: Tensor, b: Tensor, p: int, epsilon: float) -> Tensor:
    """Transport costs ``(B,)`` of pairs of sets, in chunks that stay in a CPU's cache."""
    n, m, d = x.shape[1], y.shape[1], x.shape[2]
    size = _chunk(x.device, max(n * m, (n + m) * d))
    chunks = zip(*(part.split(size) for part in (x, y, a, b)), strict=True)
    costs = [_entropic_costs(_costs(u, v, p), s, t, epsilon, x.dtype) for u, v, s, t in chunks]
    return torch.cat(costs)


def _entropic_costs(cost: Tensor, a: Tensor, b: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
    """Transport costs ``(B,)`` in chunks of problems."""
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    if not len(cost):
        return cost.sum(dim=(1, 2))
    size = _chunk(cost.device, cost.shape[1] * cost.shape[2])
    chunks = zip(*(part.split(size) for part in (cost, a, b)), strict=True)
    return torch.cat([EntropicCost.apply(c, m, n, epsilon, tolerance) for c, m, n in chunks])


def _chunk(device: torch.device, numbers_each: int) -> int:
    """How many problems of so many float64 numbers are taken at once."""
    return max(1, CHUNK.get(device.type, 2**28) // max(1, 8 * numbers_each))
