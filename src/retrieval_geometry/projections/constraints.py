"""The constraints of [ae-svc] on a latent space: zero mean, unit variance, no covariance."""

from typing import TypedDict

import torch
from torch import Tensor

from retrieval_geometry._check import check_count, check_finite, check_floating, check_shape
from retrieval_geometry._tolerances import COORDINATES


class ConstraintLosses(TypedDict):
    """What :func:`constraint_losses` gives; each is a scalar."""

    cov: Tensor
    var: Tensor
    mean: Tensor
    off: Tensor


def constraint_losses(z: Tensor) -> ConstraintLosses:
    r"""Constraint losses of a batch of latent vectors, differentiable.

    .. math::
        L_{cov} = \Bigl\| \tfrac{1}{n} (Z - \mu)^\top (Z - \mu) - I \Bigr\|_F^2, \quad
        L_{var} = \tfrac{1}{d} \sum_i (\mathrm{Var}(z^i) - 1)^2, \quad
        L_{mean} = \tfrac{1}{d} \sum_i (\mu^i)^2

    Source: [ae-svc] eqs. 2, 3 and 4, erratum 4.1. Used in no chapter.

    ``cov`` is eq. 2 as printed, which penalises the variances as well, though the text says off-diagonal, and
    is a sum where the others are means. ``off`` is its part off the diagonal, which the text means: with
    variances over n, as here, ``cov = off + d var``.

    A batch of n vectors has a covariance of rank n - 1 at most, so ``cov`` cannot fall below
    :func:`covariance_floor`, d - n + 1, whatever the vectors.

    Args:
        z: ``(n, d)``.

    Returns:
        ``cov``, ``var``, ``mean`` and ``off``, none below 0.

    Raises:
        ValueError: another shape or dtype, NaN, infinity, or coordinates whose squares overflow.

    Example:
        >>> z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
        >>> [float(value) for value in constraint_losses(z).values()]
        [0.0, 0.0, 0.0, 0.0]
    """
    check_shape(check_floating(z, "z"), "z", ("vectors", "dimensions"))
    check_finite(z, "z")
    if float(z.detach().abs().max()) > COORDINATES[z.dtype][1]:
        raise ValueError(
            f"z has a coordinate above {COORDINATES[z.dtype][1]:g}, and squares overflow; scale z"
        )
    mean = z.mean(dim=0)
    centred = z - mean
    return losses_of_moments(mean, centred.mT @ centred / len(z))


def covariance_floor(n: int, dim: int) -> int:
    r"""Least value of the covariance loss of n vectors in ``dim`` dimensions: ``max(0, dim - n + 1)``.

    Of the eigenvalues of a covariance of n vectors n - 1 at most are not 0, and each that is 0 adds 1 to
    :math:`\|\Sigma - I\|_F^2`. Whitened vectors reach it.

    Source: this package's own. Used in no chapter.

    Args:
        n: vectors of a batch.
        dim: their length.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> covariance_floor(256, 1280)
        1025
    """
    return max(0, check_count(dim, "dim") - check_count(n, "n") + 1)


def losses_of_moments(mean: Tensor, covariance: Tensor) -> ConstraintLosses:
    """The losses by mean ``(d,)`` and covariance ``(d, d)``, with n in the denominator."""
    dim = len(mean)
    excess = covariance.diagonal() - 1
    diagonal = excess.square().sum()
    # Not the difference of two sums: it would lose the digits of a small one.
    off = (covariance - covariance.diagonal().diag_embed()).square().sum()
    return {"cov": off + diagonal, "var": diagonal / dim, "mean": mean.square().sum() / dim, "off": off}


def unbiased_losses(z: Tensor, mean: Tensor) -> ConstraintLosses:
    r"""Losses of held-out vectors ``(m, d)`` whose mean over others is known: the covariance without a floor.

    .. math:: \|\mathrm{E} z z^\top - I\|_F^2 = \mathrm{E} (z \cdot z')^2 - 2 \mathrm{E} z \cdot z + d

    for independent z and z'. The average over all pairs estimates that without bias, however few vectors
    there are; it may fall below 0.
    """
    centred = z - mean
    gram = centred @ centred.mT
    lengths = gram.diagonal()
    pairs = (gram.square().sum() - lengths.square().sum()) / (len(z) * (len(z) - 1))
    cov = pairs - 2 * lengths.mean() + z.shape[1]
    plain = centred.square().mean(dim=0) - 1
    rest = z.mean(dim=0).square().mean()
    off = cov - plain.square().sum()
    return {"cov": cov, "var": plain.square().mean(), "mean": rest, "off": off}


def as_floats(losses: ConstraintLosses) -> dict[str, float]:
    """Plain numbers by name."""
    return {name: float(value) for name, value in losses.items() if isinstance(value, Tensor)}


def live_moments(z: Tensor, mean: Tensor, second: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean and covariance that have given values, and the gradient of a batch.

    Args:
        z: ``(n, d)``, the batch.
        mean: ``(d,)``, of more than the batch.
        second: ``(d, d)``, the mean of z z^T over the same.
        share: of the batch in them; the gradient is multiplied by it.
    """
    own_mean, own_second = share * z.mean(dim=0), share * (z.mT @ z) / len(z)
    live_mean = own_mean + (mean - own_mean).detach()
    live_second = own_second + (second - own_second).detach()
    return live_mean, live_second - torch.outer(live_mean, live_mean)
