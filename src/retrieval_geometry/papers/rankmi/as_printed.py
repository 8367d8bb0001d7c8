"""Formulas of [rankmi] as printed where they are wrong, beside the corrected ones: for the errata only.

Nothing in the package trains with them. Each function is a printed formula, typed in as it stands; beside it
stands the corrected one, or the name of the module that has it. The V of eq. 13 (erratum 3.4) is in
:mod:`retrieval_geometry.losses.special_cases`.
"""

import torch
from torch import Tensor

from retrieval_geometry._check import check_labels
from retrieval_geometry.losses.statistics_network import negative_score, positive_score


def negative_pair_distribution(conditional: Tensor, prior: Tensor) -> Tensor:
    r"""Distribution of pairs of different classes, [rankmi] eq. 5 corrected (erratum 3.1).

    .. math:: \sum_k \sum_{k' \ne k} p(x_i | k) p(k) p(x_j | k') p(k')

    Its mass is 1 minus the sum of squared priors: close to the product of marginals if classes are many.

    Args:
        conditional: ``(K, X)``, p(x | k) over X values.
        prior: ``(K,)``, p(k).

    Returns:
        ``(X, X)``.

    Example:
        >>> negative_pair_distribution(torch.eye(2), torch.tensor([0.5, 0.5]))
        tensor([[0.0000, 0.2500],
                [0.2500, 0.0000]])
    """
    # All pairs less those of one class.
    joint = conditional * prior.unsqueeze(1)
    return torch.outer(joint.sum(dim=0), joint.sum(dim=0)) - joint.T @ joint


def negative_pair_distribution_as_printed(conditional: Tensor, prior: Tensor) -> Tensor:
    r"""[rankmi] eq. 5 as printed, **wrong**: :math:`x_j` does not occur in it (erratum 3.1).

    .. math:: \sum_k \sum_{k' \ne k} p(x_i | k) p(k) p(k') p(k')

    Args:
        conditional: ``(K, X)``, p(x | k) over X values.
        prior: ``(K,)``, p(k).

    Returns:
        ``(X, X)``, the same for every :math:`x_j`.
    """
    others = prior.square().sum() - prior.square()
    # Only x_i occurs, so all columns are one.
    in_i = ((prior * others).unsqueeze(1) * conditional).sum(dim=0)
    return in_i.unsqueeze(1).expand(-1, conditional.shape[1])


def jensen_shannon(p: Tensor, q: Tensor, step: float = 1.0) -> Tensor:
    r"""Jensen-Shannon divergence of two densities on a grid, by the sum over the grid.

    .. math:: \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m), \qquad m = (p + q) / 2

    Args:
        p: ``(X,)`` values of a density, or masses.
        q: ``(X,)``.
        step: of the grid; 1 for masses.

    Returns:
        A scalar in nats, from 0 to log 2.

    Example:
        >>> jensen_shannon(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).round(decimals=2)  # log 2
        tensor(0.6900)
    """
    middle = (p + q) / 2
    # SciPy's ``jensenshannon`` is the root of this, of vectors that it first divides by their sums: no
    # densities.
    # 0 log 0 = 0, also where both densities vanish.
    terms = [torch.xlogy(density, density / middle.clamp_min(1e-300)) for density in (p, q)]
    return (terms[0] + terms[1]).sum() * step / 2


def optimal_bound(p: Tensor, q: Tensor, step: float = 1.0) -> Tensor:
    r"""The largest value of the bound in [rankmi] eq. 2, at :math:`V = \log(p / q)` (erratum 3.2).

    It is 2 JSD, and the supremum over any family of functions, a network's say, is at most this: the ">=" of
    eq. 2 is right. The factor 2 is missing: the value may exceed JSD, which it is said to bound. (The
    JSD generator of f-GAN has the same factor.) For joint and product distribution it stays a lower bound of
    the mutual information, as 2 JSD(p, q) = KL(p | q) - 2 KL((p + q) / 2 | q).

    Args:
        p: ``(X,)`` positive values of a density, or masses.
        q: ``(X,)``.
        step: of the grid; 1 for masses.

    Returns:
        A scalar in nats, from 0 to 2 log 2.
    """
    # The best V: the bound is reached there.
    ratio = p.log() - q.log()
    return (p * positive_score(ratio) + q * negative_score(ratio)).sum() * step


def pair_losses(values: Tensor) -> tuple[Tensor, Tensor]:
    r"""Losses of a matching pair and of another pair: -T and :math:`-\log(2 - e^T)` ([rankmi] eq. 6).

    Args:
        values: V of the distance, any shape.

    Returns:
        Both losses; as V falls with the distance, the first rises and the second falls.
    """
    return -positive_score(values), -negative_score(values)


def pair_losses_as_printed(values: Tensor) -> tuple[Tensor, Tensor]:
    r"""The losses as [rankmi] section 3.3 names them, **wrong**: T and :math:`\log(2 - e^T)` (erratum 3.3).

    The minus signs of eq. 6 are missing: descent on these drives matches apart and others together.

    Args:
        values: V of the distance, any shape.
    """
    return positive_score(values), negative_score(values)


def distances_as_printed(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    r"""Distances of [rankmi] Algorithm 1, lines 6-8, as printed, **wrong**: i = j is a match (erratum 3.5).

    Section 3.2 of the paper leaves i = j out; only the listing forgets to. Then B zeros are among the
    distances of matching pairs: they pull the estimate up, and the gradient of
    :math:`\sqrt{\sum (z_i - z_i)^2}`, typed like this, is NaN (PyTorch's ``norm`` and ``cdist`` take 0).

    Args:
        embeddings: ``(B, D)``.
        labels: ``(B,)``.

    Returns:
        Distances of matching pairs, and of the others.
    """
    labels = check_labels(labels, len(embeddings)).to(embeddings.device)
    gaps = embeddings.unsqueeze(1) - embeddings  # lines 6-8 have no i != j
    distances = gaps.square().sum(dim=2).sqrt()
    same = labels.unsqueeze(1) == labels
    return distances[same], distances[~same]
