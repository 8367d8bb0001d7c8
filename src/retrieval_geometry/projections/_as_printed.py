"""Formulas of [ae-svc] as printed where they are wrong: for the errata only.

Two more need no function of their own: eq. 2 (erratum 4.1) is ``cov`` of :func:`constraint_losses` beside
``off``, and eq. 13 (erratum 4.4) is :func:`cosine_variance` beside :func:`exact_cosine_variance`.
"""

import torch
from torch import Tensor
from torch.nn import functional


def exceedance_probability_as_printed(mean: Tensor, variance: Tensor, threshold: Tensor) -> Tensor:
    """[ae-svc] eq. 8 as printed, **wrong**: it tends to -1 above the mean (erratum 4.2).

    Args:
        mean: ``(...)``, of the cosine.
        variance: ``(...)``.
        threshold: ``(...)``.
    """
    return torch.erf((mean - threshold) / variance.sqrt())


def squared_length_dispersion_as_printed(variances: Tensor) -> Tensor:
    """The ratio below [ae-svc] eq. 10 as printed, **wrong**: it changes with the unit (erratum 4.3).

    Args:
        variances: ``(..., d)``.
    """
    return 2 * variances.sum(dim=-1) / variances.sum(dim=-1).square()


def similarity_divergence_as_printed(student: Tensor, teacher: Tensor, size: int) -> Tensor:
    """[ae-svc] eq. 6 as printed, **wrong**: rows of cosines are no distributions (erratum 4.5).

    A cosine below 0 has no logarithm, and rows that do not sum to 1 may have a divergence below 0.

    Args:
        student: ``(n, d)``.
        teacher: ``(n, D)``.
        size: of the prefix.
    """
    found, target = (functional.normalize(x, dim=1) for x in (student[:, :size], teacher))
    a, b = found @ found.mT, target @ target.mT
    return (a * (a / b).log()).sum()
