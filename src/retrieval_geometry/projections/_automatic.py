"""Power and shrinkage of a whitening, chosen on references that are held out, without labels."""

import torch
from torch import Tensor
from torch.nn import functional

from retrieval_geometry._tolerances import NULL_DIRECTION, TINY
from retrieval_geometry.projections._base import leading_axes
from retrieval_geometry.projections._rows import Rows
from retrieval_geometry.projections.moments import StreamingMoments

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHARES = (0.0, *(10.0 ** (step / 4) for step in range(-16, 1)))  # 1e-4 to 1
HELD_OUT = 2000
NEAREST = 10
FEWEST = 8


def choose(rows: Rows, moments: StreamingMoments, seed: int) -> tuple[float, float, dict[str, float]]:
    """Power and shrinkage, and the agreement of the halves at each power.

    Raises:
        ValueError: too few references or dimensions.
    """
    if rows.n < FEWEST or rows.dim < 2:
        raise ValueError(
            f'shrinkage = "auto" needs X with at least {FEWEST} rows and two dimensions, got '
            f"{(rows.n, rows.dim)}; give power and shrinkage as numbers"
        )
    generator = torch.Generator().manual_seed(seed)
    count = min(HELD_OUT, rows.n // 4)
    held = rows.take(torch.randperm(rows.n, generator=generator)[:count].sort().values).double()
    others = moments.without(held)
    centred, covariance = held - others.mean, others.covariance
    share = likeliest_share(covariance, centred)
    halves = torch.randperm(rows.dim, generator=generator).to(rows.device).tensor_split(2)
    views = [_principal(covariance[half][:, half], centred[:, half], share) for half in halves]
    scores = {f"{power:g}": agreement(*(y * v ** (-power / 2) for y, v in views)) for power in POWERS}
    best = max(scores, key=lambda power: (round(scores[power], 9), -float(power)))  # of equal ones the least
    return float(best), share, scores


def likeliest_share(covariance: Tensor, centred: Tensor) -> float:
    """The shrinkage under which held-out vectors are most likely by a Gaussian of the shrunk covariance."""
    variances, axes = leading_axes(covariance)
    found = (centred @ axes.mT).square().mean(dim=0)
    costs = []
    for share in SHARES:
        shrunk = (1 - share) * variances + share * variances.mean()
        costs.append(float((shrunk.log() + found / shrunk).sum()) if float(shrunk.min()) > 0 else torch.inf)
    return SHARES[costs.index(min(costs))]


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of the nearest by the cosine that two views ``(m, ...)`` of the same images have in common."""
    nearest = min(NEAREST, len(a) - 1)
    lists = []
    for view in (a, b):
        unit = functional.normalize(view, dim=1)
        lists.append((unit @ unit.mT).fill_diagonal_(-torch.inf).topk(nearest, dim=1).indices)
    common = (lists[0].unsqueeze(2) == lists[1].unsqueeze(1)).sum()
    return float(common) / (len(a) * nearest)


def _principal(covariance: Tensor, centred: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Coordinates on the principal axes of some dimensions, and the shrunk variances there."""
    variances, axes = leading_axes(covariance)
    shrunk = (1 - share) * variances + share * variances.mean()
    return centred @ axes.mT, shrunk.clamp(min=max(NULL_DIRECTION * float(shrunk.max()), TINY))
