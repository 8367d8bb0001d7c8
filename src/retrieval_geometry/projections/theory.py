r"""Theory of [ae-svc] section 4: the distribution of the cosine of two draws from a Gaussian.

Draws have mean 0 and covariance diag(:math:`\sigma_1^2, ..., \sigma_d^2`): by invariance under rotations any
covariance with these eigenvalues.
"""

from typing import Any

import torch
from torch import Tensor

from retrieval_geometry._check import check_finite, check_floating, check_same_kind

STEP = 0.25
"""Of the trapezoid rule in log t: the integrand is analytic in a strip, so its error is below 1e-30."""

DECADES = 80.0
"""Beyond e^-80 and e^160 times the scale of the integral there is less than rounding of it."""


def exceedance_probability(mean: Tensor, variance: Tensor, threshold: Tensor) -> Tensor:
    r"""Probability that a cosine exceeds a threshold, if cosines are normally distributed.

    .. math:: P(\cos > \tau) = \tfrac{1}{2} \Bigl[1 + \mathrm{erf} \frac{\mu - \tau}{\sqrt{2} \sigma}\Bigr]

    Source: [ae-svc] eq. 8, erratum 4.2. Used in no chapter.

    As printed it lacks both halves and the root of 2, and tends to -1. With eq. 12's mean 0 and a positive
    threshold a smaller variance *lowers* it: the argument is about false matches of unrelated images.

    Args:
        mean: ``(n,)`` or of any shape, of the cosine.
        variance: of a shape that fits, above 0.
        threshold: of a shape that fits.

    Returns:
        ``(n,)`` or the common shape, from 0 to 1.

    Raises:
        ValueError: no floating-point tensors of one dtype, NaN, or a variance that is not above 0.

    Example:
        >>> zero, one = torch.tensor(0.0), torch.tensor(1.0)
        >>> exceedance_probability(zero, one, zero)
        tensor(0.5000)
    """
    named = {"mean": mean, "variance": variance, "threshold": threshold}
    for name, value in named.items():
        check_finite(check_floating(value, name), name)
    check_same_kind(named.values(), "mean, variance and threshold")
    if not bool((variance > 0).all()):
        raise ValueError(f"variance must be above 0, got {float(variance.min()):g}")
    try:
        return 0.5 * torch.special.erfc((threshold - mean) / (2 * variance).sqrt())
    except RuntimeError:
        shapes = ", ".join(str(tuple(value.shape)) for value in named.values())
        raise ValueError(f"mean, variance and threshold must have shapes that fit, got {shapes}") from None


def cosine_variance(variances: Tensor) -> Tensor:
    r"""Variance of the cosine of two draws, as [ae-svc] approximates it.

    .. math:: \mathrm{Var} \cos \approx \sum_i \sigma_i^4 / \bigl(\textstyle\sum_j \sigma_j^2\bigr)^2

    Source: [ae-svc] eq. 13, erratum 4.4. Used in no chapter.

    The length of a draw is taken for its root mean square. That overestimates the variance where few
    directions rule, see :func:`exact_cosine_variance`; with equal variances both are 1/d.

    Args:
        variances: ``(..., d)``, none below 0, not all 0.

    Returns:
        ``(...)`` from 1/d to 1.

    Raises:
        ValueError: another dtype, NaN, a variance below 0, or only zeros.

    Example:
        >>> cosine_variance(torch.tensor([1.0, 1.0, 1.0, 1.0]))
        tensor(0.2500)
    """
    share = _shares(variances)
    return share.square().sum(dim=-1).to(variances.dtype)


def effective_dimension(variances: Tensor) -> Tensor:
    r"""Effective dimension of a spectrum: the number of equal variances of the same :func:`cosine_variance`.

    .. math:: \bigl(\textstyle\sum_j \sigma_j^2\bigr)^2 / \sum_i \sigma_i^4

    Source: this package's own name for the inverse of [ae-svc] eq. 13. Used in no chapter.

    Args:
        variances: ``(..., d)``, none below 0, not all 0.

    Returns:
        ``(...)`` from 1 to d.

    Raises:
        ValueError: another dtype, NaN, a variance below 0, or only zeros.

    Example:
        >>> effective_dimension(torch.tensor([1.0, 1.0, 0.0]))
        tensor(2.)
    """
    return (1 / _shares(variances).square().sum(dim=-1)).to(variances.dtype)


def exact_cosine_variance(variances: Tensor) -> Tensor:
    r"""Variance of the cosine of two independent draws, without approximation.

    .. math::
        \mathrm{Var} \cos = \sum_i a_i^2, \quad
        a_i = \mathrm{E} \frac{X_i^2}{\|X\|^2}
            = \int_0^\infty \frac{\sigma_i^2}{1 + 2 t \sigma_i^2} \prod_j (1 + 2 t \sigma_j^2)^{-1/2} dt

    Source: this package's own, for [ae-svc] erratum 4.4. Used in no chapter.

    Signs of coordinates are independent of all else, so that of the square of the cosine only the squares
    have a mean; and 1 / q is the integral of exp(-t q), whose mean is a product. The integral is a trapezoid
    rule in log t.

    Args:
        variances: ``(..., d)``, none below 0, not all 0.

    Returns:
        ``(...)`` from 1/d to 1.

    Raises:
        ValueError: another dtype, NaN, a variance below 0, or only zeros.

    Example:
        >>> exact_cosine_variance(torch.tensor([1.0, 1.0]))
        tensor(0.5000)
    """
    share = _shares(variances)
    flat = share.reshape(-1, share.shape[-1])
    found = torch.stack([_mean_shares(row).square().sum() for row in flat])
    return found.reshape(share.shape[:-1]).to(variances.dtype)


def cosine_variance_gradient(variances: Tensor) -> Tensor:
    r"""Derivative of :func:`cosine_variance` by the variances; eq. 14 is right as printed.

    .. math:: 2 \bigl(\textstyle\sum_j \sigma_j^2\bigr)^{-3}
        \bigl[\bigl(\textstyle\sum_j \sigma_j^2\bigr) \sigma_i^2 - \sum_j \sigma_j^4\bigr]

    Source: [ae-svc] eq. 14. Used in no chapter.

    Args:
        variances: ``(..., d)``, none below 0, not all 0.

    Returns:
        ``(..., d)``; all 0 where the variances are equal.

    Raises:
        ValueError: another dtype, NaN, a variance below 0, or only zeros.

    Example:
        >>> cosine_variance_gradient(torch.tensor([3.0, 1.0]))
        tensor([ 0.0625, -0.1875])
    """
    share = _shares(variances)
    total = variances.double().sum(dim=-1, keepdim=True)
    return (2 / total * (share - share.square().sum(dim=-1, keepdim=True))).to(variances.dtype)


def squared_length_dispersion(variances: Tensor) -> Tensor:
    r"""Variance of the squared length of a draw over the square of its mean.

    .. math:: 2 \sum_i \sigma_i^4 / \bigl(\textstyle\sum_j \sigma_j^2\bigr)^2

    Source: [ae-svc] section 4, below eq. 10, erratum 4.3. Used in no chapter.

    Where it is small a length may be taken for its root mean square, as eq. 11 does.

    Args:
        variances: ``(..., d)``, none below 0, not all 0.

    Returns:
        ``(...)`` from 2/d to 2.

    Raises:
        ValueError: another dtype, NaN, a variance below 0, or only zeros.

    Example:
        >>> squared_length_dispersion(torch.ones(4))
        tensor(0.5000)
    """
    return 2 * cosine_variance(variances)


def _mean_shares(share: Tensor) -> Tensor:
    """E X_i^2 / |X|^2 for variances ``(d,)`` of sum 1."""
    grid = torch.arange(-DECADES, 2 * DECADES, STEP, dtype=torch.float64, device=share.device)
    t = grid.exp()[:, None]
    tails = torch.log1p(2 * t * share)
    # t from dt = t d(log t); in logarithms, as the product of many factors underflows.
    weights = (grid - tails.sum(dim=1) / 2).exp() * STEP
    return (weights[:, None] * share / (1 + 2 * t * share)).sum(dim=0)


def _shares(variances: Any) -> Tensor:
    """Variances over their sum, in float64."""
    check_floating(variances, "variances")
    if not variances.ndim or not variances.shape[-1]:
        raise ValueError(f"variances must have shape (..., d), got {tuple(variances.shape)}")
    exact = variances.detach().double()
    if not bool(exact.isfinite().all()) or bool((exact < 0).any()):
        raise ValueError("variances must be finite numbers, none below 0")
    top = exact.amax(dim=-1, keepdim=True)
    if not bool((top > 0).all()):
        raise ValueError("variances must not all be 0")
    exact = exact / top  # sums of what is very large or small stay numbers
    return exact / exact.sum(dim=-1, keepdim=True)
