"""Formulas of [wasserstein-dml] as printed where they are wrong, for the errata only.

Nothing in the package trains with them. Each function is a printed formula, typed in as it stands, and names
the corrected one.
"""

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_shape
from retrieval_geometry.coresets import facility_location
from retrieval_geometry.distances import pairwise_sinkhorn_divergence, sinkhorn_divergence


def sinkhorn_divergence_as_printed(x: Tensor, y: Tensor, p: int, epsilon: float) -> Tensor:
    r"""[wasserstein-dml] eq. 4 as printed, **wrong**: it debiases the roots (erratum 2.1).

    .. math:: W_\varepsilon(\mu, \nu) - \tfrac12 (W_\varepsilon(\mu, \mu) + W_\varepsilon(\nu, \nu)),
              \qquad W_\varepsilon = \mathrm{OT}_\varepsilon^{1/p}

    Only the p-th power can be debiased. Corrected, :math:`S_\varepsilon^{1/p}` is the root of
    :func:`~retrieval_geometry.distances.sinkhorn_divergence`; both agree for p = 1. Eq. 3 prints arg min for
    the min that :math:`\mathrm{OT}_\varepsilon` is.

    Args:
        x: ``(B, n, d)``.
        y: ``(B, m, d)``.
        p: 1 or 2.
        epsilon: strength of the regularisation.

    Returns:
        ``(B,)``, units of the points.
    """
    # OT between two sets, and of each with itself.
    costs = (
        sinkhorn_divergence(*pair, p=p, epsilon=epsilon, debias=False) for pair in ((x, y), (x, x), (y, y))
    )
    # Here is the error: the root is taken before the self terms go.
    crossed, own_x, own_y = (cost.clamp_min(0) ** (1 / p) for cost in costs)
    return crossed - (own_x + own_y) / 2


def similarity_as_printed(divergences: Tensor) -> Tensor:
    r"""The similarity of [wasserstein-dml] eq. 6 as printed, **wrong**: 1 / SD(i, i) is 1 / 0 (erratum 2.2).

    :math:`F_w(S)` is then infinite for every S that is not empty, so that all subsets are equally good.
    Corrected: :func:`~retrieval_geometry.coresets.craig`.

    Args:
        divergences: ``(n, n)`` Sinkhorn divergences.

    Returns:
        ``(n, n)``, infinite on the diagonal.

    Example:
        >>> similarity_as_printed(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
        tensor([[   inf, 0.5000],
                [0.5000,    inf]])
    """
    return 1 / divergences


def wcraig_as_printed(
    x: Tensor, n_points: int, step_size: float, steps: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    r"""[wasserstein-dml] Algorithm 1 line by line, **wrong** (erratum 2.3).

    The ``while`` in front of :math:`F_w(S) < L(\{s_0\}) - \epsilon` is missing, so one element is chosen; the
    initial :math:`s_0 = 0` is no element of V, so S starts empty; and the algorithm returns the subset S,
    which the descent of the points :math:`x_i` never touches. (The choice uses the similarities of
    :func:`~retrieval_geometry.coresets.craig`, as those of eq. 6 are infinite.) Corrected, these are two
    algorithms: :func:`~retrieval_geometry.coresets.wcraig` and
    :func:`~retrieval_geometry.coresets.wasserstein_coreset`.

    Args:
        x: ``(n, d)`` points of the measure.
        n_points: how many points the descent moves.
        step_size: gamma.
        steps: of the descent.
        generator: of the initial points.

    Returns:
        The subset, one index, and the points ``(n_points, d)`` that the paper does not return.

    Example:
        >>> subset, moved = wcraig_as_printed(torch.tensor([[0.0], [1.0], [5.0]]), 1, 0.1, 3)
        >>> subset
        tensor([1])
    """
    check_shape(x, "x", ("points", "dimensions"))
    check_count(n_points, "n_points", at_most=len(x))
    points = x[torch.randperm(len(x), generator=generator)[:n_points]].clone()
    divergences = pairwise_sinkhorn_divergence(x.unsqueeze(1), x.unsqueeze(1))
    # The lines of the choice: the condition without its loop adds one element.
    subset = facility_location(divergences.max() - divergences, 1)
    # The descent of eq. 5: it moves points that S does not hold.
    for _ in range(steps):
        points.requires_grad_(True)
        value = sinkhorn_divergence(points.unsqueeze(0), x.unsqueeze(0)).sum()
        points = (points - step_size * torch.autograd.grad(value, points)[0]).detach()
    return subset, points
