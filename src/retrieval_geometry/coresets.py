"""Coresets, few images or points that stand for many: facility location, WCRAIG, Wasserstein coresets."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval_geometry._check import (
    ImageName,
    check_count,
    check_finite,
    check_floating,
    check_labels,
    check_number,
    check_same_kind,
    check_shape,
)
from retrieval_geometry.distances import pairwise_sinkhorn_divergence, sinkhorn_divergence

Floats = NDArray[np.float64]

TIE = 1e-6
"""Gains, and distances, that differ by less than this share of the better one count as equal."""

ROUNDING = 16
"""Gains, and distances, that differ by so many units in the last place of the largest one count as equal."""


class Coreset(NamedTuple):
    """A weighted subset. Derived in chapter 12.

    Attributes:
        indices: ``(size,)`` int64, in the order in which they were chosen.
        weights: ``(size,)`` float64, how many elements each stands for, itself among them; they sum to n.
    """

    indices: Tensor
    weights: Tensor


def facility_location(similarity: Tensor, size: int) -> Tensor:
    r"""Greedy subset of candidates in which every element has a similar one.

    .. math:: F(S) = \sum_{i} \max_{j \in S} s_{ij}

    Source: Nemhauser et al. 1978, Minoux 1978. Derived in chapter 12.

    F is monotone and submodular, so the greedy choice reaches at least 1 - 1/e of the best F of that size
    (Nemhauser et al. 1978). Gains only fall as S grows, so an old gain is a bound of the new one and most
    need not be computed again (lazy greedy, Minoux 1978). The choice is that of the plain greedy algorithm
    with the lowest index among equals. Gains within 1e-6 of the best, relatively, or within 16 units in the
    last place (of the dtype of the similarities) of the largest gain of all, are equal: the choice does not
    hang on the order in which a processor adds.

    Args:
        similarity: ``(n, m)``, at least 0: of each of n elements to each of m candidates.
        size: from 1 to m.

    Returns:
        ``(size,)`` int64 candidates, in the order of the choice, so that every beginning is a greedy choice.

    Raises:
        ValueError: a similarity is negative or not finite, or ``size`` is out of range.

    Example:
        >>> s = torch.tensor([[3.0, 2.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 2.0]])
        >>> facility_location(s, 2)
        tensor([0, 2])
    """
    check_shape(check_floating(similarity, "similarity"), "similarity", ("elements", "candidates"))
    check_finite(similarity, "similarity", ImageName(kind="element"))
    if (similarity < 0).any():
        raise ValueError("similarity must not be negative, as the empty set counts 0; subtract its minimum")
    check_count(size, "size", at_most=similarity.shape[1])
    columns = np.ascontiguousarray(similarity.detach().double().cpu().numpy().T)
    chosen = _lazy_greedy(columns, size, ROUNDING * torch.finfo(similarity.dtype).eps)
    return torch.tensor(chosen, device=similarity.device)


def _lazy_greedy(columns: Floats, size: int, rounding: float) -> list[int]:
    """Greedy choice among candidates ``(m, n)``; a stale gain is one of an earlier step, and too high.

    Not even by rounding is it too low: subtraction, maximum and sums in one order are monotone in floating
    point as well.
    """
    best = np.zeros(columns.shape[1])  # max over S of s_ij for every i; the empty set counts 0
    gains = np.array([_gain(column, best) for column in columns])
    stale = np.zeros(len(columns), dtype=bool)
    floor = rounding * gains.max()

    def refreshed(j: int) -> float:
        if stale[j]:
            gains[j], stale[j] = _gain(columns[j], best), False
        return float(gains[j])

    chosen: list[int] = []
    while len(chosen) < size:
        # Minoux: a gain that was refreshed and is still the largest beats all bounds.
        while stale[top := int(gains.argmax())]:
            refreshed(top)
        # The lowest index among equals; candidates whose bound is too low are not computed.
        enough = gains[top] - max(TIE * gains[top], floor)
        winner = next(j for j in np.flatnonzero(gains >= enough).tolist() if refreshed(j) >= enough)
        chosen.append(winner)
        np.maximum(best, columns[winner], out=best)
        # Submodularity: gains only fall as S grows, and the chosen one leaves the race.
        stale[:], gains[winner] = True, -np.inf
    return chosen


def _gain(column: Floats, best: Floats) -> float:
    return float(np.maximum(column - best, 0).sum())  # F(S + j) - F(S)


def craig(distances: Tensor, size: int) -> Coreset:
    r"""Weighted subset by CRAIG's facility location on distances.

    .. math:: F(S) = L(\{s_0\}) - L(S \cup \{s_0\}), \qquad L(S) = \sum_i \min_{j \in S} d_{ij}

    Source: Mirzasoleiman et al. 2020; [wasserstein-dml] eq. 6, erratum 2.2. Derived in chapter 12.

    The element :math:`s_0` is no image: it is as far from all as any two are from each other, so F is
    :func:`facility_location` with similarities :math:`\max d - d_{ij}`. A zero distance is welcome here,
    where the similarity 1 / d of [wasserstein-dml] eq. 6 is infinite (erratum 2.2).

    Args:
        distances: ``(n, n)``, at least 0.
        size: from 1 to n.

    Returns:
        The subset; the weight of an element counts those nearest to it (its Voronoi region). Ties, by the
        rule of :func:`facility_location`, go to the lowest index among candidates, and to the one chosen
        first among chosen elements that are equally near.

    Raises:
        ValueError: distances that are no square of non-negative finite numbers, or ``size`` out of range.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0]])
        >>> craig(torch.cdist(x, x), 2)
        Coreset(indices=tensor([1, 3]), weights=tensor([3., 1.], dtype=torch.float64))
    """
    check_shape(check_floating(distances, "distances"), "distances", ("images", "images"))
    check_shape(distances, "distances", (len(distances), len(distances)))
    check_finite(distances, "distances")
    if (distances < 0).any():
        raise ValueError("distances must not be negative; similarities go to facility_location")
    # L({s_0}) - L(S + s_0) with s_0 as far as any two images are.
    indices = facility_location(distances.max() - distances, size)
    to_chosen = distances[:, indices].detach().clone()
    # A chosen image belongs to itself, also where another one has the same content.
    to_chosen[indices, torch.arange(size, device=indices.device)] = -torch.inf
    nearest = to_chosen.amin(dim=1, keepdim=True)
    floor = ROUNDING * torch.finfo(distances.dtype).eps * distances.detach().max()
    equally_near = to_chosen <= nearest + torch.maximum(TIE * nearest, floor)
    # The first of equals: argmax is defined so.
    weights = torch.bincount(equally_near.int().argmax(dim=1), minlength=size).double()
    return Coreset(indices, weights)


def wcraig(x: Tensor, size: int, p: int = 1, epsilon: float = 0.05) -> Coreset:
    """Weighted subset of images by CRAIG on their Sinkhorn divergences.

    Source: [wasserstein-dml] Algorithm 1, errata 2.2 and 2.3. Derived in chapter 12.

    The algorithm as printed cannot be run (erratum 2.3) and its similarity is infinite (erratum 2.2); this is
    the selection that it describes. Its other half, points that move, is :func:`wasserstein_coreset`.

    Args:
        x: ``(n, points, d)`` local features of n images, masses equal. A vector is a set of one point.
        size: from 1 to n.
        p: 1 or 2, the power of the ground distance.
        epsilon: strength of the regularisation.

    Returns:
        The subset with its Voronoi counts, see :func:`craig`.

    Raises:
        ValueError: what :func:`~retrieval_geometry.distances.sinkhorn_divergence` or :func:`craig` refuses.

    Example:
        >>> x = torch.tensor([[[0.0], [1.0]], [[1.0], [0.0]], [[7.0], [9.0]]])
        >>> wcraig(x, 2)
        Coreset(indices=tensor([0, 2]), weights=tensor([2., 1.], dtype=torch.float64))
    """
    x = check_floating(x, "x").detach()
    return craig(pairwise_sinkhorn_divergence(x, x, p=p, epsilon=epsilon), size)


def training_subset(
    features: Tensor, labels: Tensor, share: float, p: int = 1, epsilon: float = 0.05
) -> Coreset:
    """Images to train on in the next epochs: WCRAIG within each class.

    Source: [wasserstein-dml] Algorithm 1, class by class as in Mirzasoleiman et al. 2020. Derived in
    chapter 12.

    Within a class of m images there are m^2 divergences, over the whole set n^2. A class keeps at least two
    images, if it has them, as one alone makes no matching pair.

    Args:
        features: ``(n, points, d)`` local features or ``(n, D)`` vectors, of the network as it stands.
        labels: ``(n,)`` whole numbers.
        share: of each class that is kept, in (0, 1], rounded up.
        p: 1 or 2.
        epsilon: strength of the regularisation.

    Returns:
        The subset, class by class; the weights sum to n.

    Raises:
        ValueError: labels that are not one for each image, ``share`` out of range, or what :func:`wcraig`
            refuses.

    Example:
        >>> x = torch.tensor([[0.0], [0.1], [0.2], [5.0], [7.0], [9.0]])
        >>> training_subset(x, torch.tensor([0, 0, 0, 0, 1, 1]), share=0.5)
        Coreset(indices=tensor([1, 3, 4, 5]), weights=tensor([3., 1., 1., 1.], dtype=torch.float64))
    """
    check_floating(features, "features")
    check_number(share, "share", above=0, at_most=1)
    if features.ndim not in (2, 3):
        raise ValueError(
            "features must have shape (images, dimensions) or (images, points, dimensions), "
            f"got {tuple(features.shape)}"
        )
    labels = check_labels(labels, len(features))
    points = features.unsqueeze(1) if features.ndim == 2 else features
    indices, weights = [], []
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1).to(features.device)
        # 1e-9: 0.1 * 30 is a little more than 3 in floating point, and 3 is meant.
        size = max(int(np.ceil(share * len(members) - 1e-9)), min(2, len(members)))
        subset = wcraig(points[members], size, p, epsilon)
        indices.append(members[subset.indices])
        weights.append(subset.weights)
    return Coreset(torch.cat(indices), torch.cat(weights))


def wasserstein_coreset(
    x: Tensor,
    size: int,
    p: int = 1,
    epsilon: float = 0.05,
    masses: Tensor | None = None,
    steps: int = 100,
    step_size: float = 0.5,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Free points whose uniform measure is close to that of x.

    .. math:: \min_{y_1, \dots, y_m} S_\varepsilon\Bigl(\mu, \tfrac1m \sum_j \delta_{y_j}\Bigr), \qquad
              y_j \leftarrow y_j - \frac{\gamma}{\sqrt{t}}\, m\, \nabla_{y_j} S_\varepsilon

    Source: [wasserstein-dml] eq. 5, erratum 2.3; Claici et al. 2020. Derived in chapter 12.

    The descent starts at points of x, drawn by their masses. Unlike those of :func:`wcraig` the points move:
    they are no points of the data, and no subset results. The factor m takes the mass 1/m of a point out of
    its gradient, so that the length of a step does not depend on m.

    Args:
        x: ``(n, d)`` points of the measure.
        size: m, from 1 to n.
        p: 1 or 2, the power of the ground distance.
        epsilon: strength of the regularisation.
        masses: ``(n,)`` of the points of x, summing to 1; uniform by default.
        steps: of the descent.
        step_size: :math:`\gamma`; for p = 2 a pure number (0.5 goes to the barycentre), for p = 1 in units
            of the root mean square distance from the mean.
        batch_size: points drawn from x for each step; by default all of x. Drawn points give noisy steps, so
            the result is the mean over the second half of the descent (with all of x, its best points). The
            minimum of the average over batches is near that for x, the nearer the larger the batches.
        generator: of the draws, on the CPU.

    Returns:
        ``(size, d)``.

    Raises:
        ValueError: shapes, masses or settings out of range.

    Example:
        >>> x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
        >>> wasserstein_coreset(x, 1, p=2).round(decimals=2)  # the mean
        tensor([[1., 1.]])
    """
    check_shape(check_floating(x, "x"), "x", ("points", "dimensions"))
    check_finite(x, "x", ImageName(kind="point"))
    check_count(size, "size", at_most=len(x))
    check_count(steps, "steps", at_least=0)
    check_number(step_size, "step_size", above=0)
    x = x.detach()
    weights = x.new_full((len(x),), 1 / len(x)) if masses is None else _check_masses(masses, x, size)
    # For p = 1 a gradient is a direction of unit length: only the step knows how wide the data is.
    scale = float((x - x.mean(dim=0)).square().sum(dim=1).mean().sqrt()) if p == 1 else 1.0
    points = x[_draw(weights, size, generator, replacement=False)]
    # gamma / sqrt(t) times m, the step of eq. 5.
    lengths = [step_size * scale * size / t**0.5 for t in range(1, steps + 1)]
    if batch_size is None:
        return _descend(points, x, weights, lengths, p, epsilon)
    visited = [points]
    for length in lengths:
        drawn = x[_draw(weights, check_count(batch_size, "batch_size"), generator, replacement=True)]
        visited.append(visited[-1] - length * _divergence_gradient(visited[-1], drawn, None, p, epsilon)[1])
    return torch.stack(visited[(steps + 1) // 2 :]).mean(dim=0)


def _descend(
    points: Tensor, x: Tensor, masses: Tensor, lengths: list[float], p: int, epsilon: float
) -> Tensor:
    """The best points of a descent on all of x."""
    value, gradient = _divergence_gradient(points, x, masses, p, epsilon)
    best, lowest = points, value
    for length in lengths:
        points = points - length * gradient
        value, gradient = _divergence_gradient(points, x, masses, p, epsilon)
        if value < lowest:
            best, lowest = points, value
    return best


def _divergence_gradient(
    points: Tensor, target: Tensor, masses: Tensor | None, p: int, epsilon: float
) -> tuple[float, Tensor]:
    with torch.enable_grad():
        leaf = points.clone().requires_grad_(True)
        value = sinkhorn_divergence(leaf.unsqueeze(0), target.unsqueeze(0), None, masses, p, epsilon).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
    return float(value.detach()), gradient


def _draw(weights: Tensor, n: int, generator: torch.Generator | None, replacement: bool) -> Tensor:
    if not isinstance(generator, torch.Generator | None):
        raise ValueError(f"generator must be a torch.Generator or None, got {type(generator).__name__}")
    drawn = torch.multinomial(weights.double().cpu(), n, replacement=replacement, generator=generator)
    return drawn.to(weights.device)


def _check_masses(masses: Tensor, x: Tensor, size: int) -> Tensor:
    """Masses for the draws; the divergence checks that they are the masses of a measure."""
    check_shape(check_floating(masses, "masses"), "masses", (len(x),))
    check_same_kind([x, masses], "x and masses")
    if not (masses >= 0).all() or abs(float(masses.sum()) - 1) > 1e-3:
        raise ValueError("masses must be non-negative and sum to 1; divide them by their sum")
    check_count(size, "size", at_most=int((masses > 0).sum()))
    return masses
