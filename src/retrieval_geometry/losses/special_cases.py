"""Triplet and quadruplet losses, and how RankMI with a fixed V becomes them ([rankmi] section 3.4).

With :math:`x = d - \\beta` in [rankmi] eq. 13, a matching pair with x > 0 has :math:`T = \\log 2 - x`, and
another pair with x < 0 has :math:`\\log(2 - e^T) = \\log 2 + x`: the losses are straight lines. Matching
pairs within beta and others beyond it get no straight line. The equality therefore holds on margin violators
only, and beta is an argument, as this V does not cross zero there (erratum 3.4).
"""

import math

import torch
from torch import Tensor

from retrieval_geometry._check import check_floating, check_number, check_shape
from retrieval_geometry.losses._batch import check_batch
from retrieval_geometry.losses.statistics_network import divergence_bound


def fixed_statistic(x: Tensor) -> Tensor:
    r"""The V of [rankmi] eq. 13, as printed (erratum 3.4).

    .. math:: V(x) = \begin{cases} \log(e^{-x} - 1) & x < 0 \\ -\log(e^x - 1) & x > 0 \end{cases}

    It is zero at :math:`\pm\log 2`, falls on either side of 0, and there jumps from minus to plus infinity:
    so it does not fall throughout (eq. 9), and :math:`V(\beta) = 0` has two solutions.

    Args:
        x: distances minus beta, any shape.

    Returns:
        V in the shape of x, NaN at 0, where eq. 13 has none.

    Example:
        >>> fixed_statistic(torch.tensor([-1.0, 1.0])).round(decimals=2)
        tensor([ 0.5400, -0.5400])
    """
    # log(e^|x| - 1) = |x| + log(1 - e^-|x|): neither overflows at large x nor cancels at small ones.
    inner = x.abs()
    value = inner + torch.log(-torch.expm1(-inner))
    return torch.where(x == 0, math.nan, -x.sign() * value)


def quadruplet_loss(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    r"""The quadruplet term of [rankmi] eq. 12, over all pairs of pairs.

    .. math:: \frac1{PN} \sum_{ij} \sum_{kl} [d^+_{ij} - d^-_{kl} + \gamma]_+

    Args:
        positive: ``(P,)`` distances of matching pairs.
        negative: ``(N,)`` distances of other pairs.
        margin: gamma.

    Returns:
        A scalar, units of the distances.

    Raises:
        ValueError: an empty sample or one with more than one axis.

    Example:
        >>> quadruplet_loss(torch.tensor([1.0]), torch.tensor([0.5, 2.0]), margin=0.5).round(decimals=3)
        tensor(0.5000)
    """
    _check_samples(positive, negative)
    return (positive.unsqueeze(1) - negative + check_number(margin, "margin")).relu().mean()


def quadruplet_as_rankmi(positive: Tensor, negative: Tensor, beta: float) -> Tensor:
    r"""RankMI's loss with the fixed V, its constant left out: the quadruplet term with margin 0.

    Args:
        positive: ``(P,)`` distances of matching pairs, all beyond beta.
        negative: ``(N,)`` distances of others, all within beta.
        beta: between them.

    Returns:
        A scalar, equal to ``quadruplet_loss(positive, negative, 0)``.

    Raises:
        ValueError: a pair is no margin violator: there the two losses differ.

    Example:
        >>> quadruplet_as_rankmi(torch.tensor([1.0, 1.5]), torch.tensor([0.5]), beta=0.8).round(decimals=3)
        tensor(0.7500)
    """
    _check_samples(positive, negative)
    if not ((positive > beta).all() and (negative < beta).all()):
        raise ValueError(
            f"positive must lie beyond beta={beta:g} and negative within it; the losses agree on margin "
            "violators only, so leave the other pairs out"
        )
    # Two constants of log 2: eq. 7 has one for each kind of pair.
    bound = divergence_bound(fixed_statistic(positive - beta), fixed_statistic(negative - beta))
    return 2 * math.log(2) - bound


def triplet_loss(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    r"""Triplet loss of [rankmi] eq. 11: the quadruplets whose pairs share their first image.

    .. math:: \sum_i \mathrm{E}_{jk} [d^+_{ij} - d^-_{ik} + \eta]_+

    over the images that have both a match and another image in the batch, all pairs (j, k) alike.

    Args:
        distances: ``(B, B)``.
        labels: ``(B,)`` whole numbers.
        margin: eta.

    Returns:
        A scalar, units of the distances.

    Example:
        >>> d = torch.tensor([[0.0, 0.5, 0.7], [0.5, 0.0, 0.2], [0.7, 0.2, 0.0]])
        >>> triplet_loss(d, torch.tensor([0, 0, 1]), margin=0.0).round(decimals=3)
        tensor(0.3000)
    """
    labels = check_batch(distances, labels)
    total = distances.new_zeros(())
    for i, row in enumerate(distances):
        matches = (labels == labels[i]) & (torch.arange(len(labels), device=labels.device) != i)
        # All (j, k) of one anchor i: the inner mean of eq. 11 is a quadruplet loss of its row.
        positive, negative = row[matches], row[labels != labels[i]]
        if len(positive) and len(negative):
            total = total + quadruplet_loss(positive, negative, margin)
    return total


def _check_samples(positive: Tensor, negative: Tensor) -> None:
    for name, sample in (("positive", positive), ("negative", negative)):
        check_shape(check_floating(sample, name), name, ("pairs",))
