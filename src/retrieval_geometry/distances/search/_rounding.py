"""What rounding may do to a bound, and how to keep out of its way."""

import torch
from torch import Tensor

from retrieval_geometry.image_models import Gaussian

MARGIN = 1e-8
"""Rounding of the distance itself, relative to the size of what it is computed from. Measured, not proved:
the largest error seen, of a fidelity from a Gram matrix of condition 1e12, was 1e-10."""

UNIT = 2.0**-53
"""Rounding of one operation in float64, relative."""


def gamma(n: int) -> float:
    r"""The constant :math:`\gamma_n = n u / (1 - n u)`: what n roundings in a row change, relative.

    A sum of n products, in any order, errs by at most this multiple of the sum of their absolute values
    (Higham 2002, section 3.1).
    """
    return n * UNIT / (1 - n * UNIT)


def householder(n: int) -> float:
    """Backward error of n reflections from two sides, and the departure of their product from a rotation.

    In the Frobenius norm, relative, for matrices with up to n rows and columns: each reflection errs by
    ``gamma(10 n)`` (Higham 2002, lemma 19.3, whose small constant is taken as 10). The iteration that follows
    the reflections in an eigensolver is taken to lie within the same: measured, not proved.
    """
    return 2 * n * gamma(10 * n)


def no_bound_if_not_finite(lower: Tensor) -> Tensor:
    """Lower bounds with 0 in place of NaN and infinity: what overflowed says nothing."""
    return lower.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)


def average_covariance(images: Gaussian) -> Tensor:
    """A multiple of the average covariance ``(D, D)``, float64, with a largest variance from 1/2 to 2.

    The identity where there is none: an image is NaN or infinite, and the checks of the images will name it,
    or all are zero.
    """
    largest = images.cov.diagonal(dim1=1, dim2=2).abs().amax(dim=0).max(dim=0).values.double()
    unit = root_unit(largest)
    total = torch.zeros(images.dim, images.dim, dtype=torch.float64, device=images.device)
    for cov in images.cov.split(64):
        total += (cov.double() / unit / unit / len(images)).sum(dim=0)
    average = (total + total.mT) / 2
    peak = average.diagonal().max()
    if not (bool(average.isfinite().all()) and float(peak) > 0):
        return torch.eye(images.dim, dtype=torch.float64, device=images.device)
    unit = root_unit(peak)
    return average / unit / unit


def root_unit(squares: Tensor) -> Tensor:
    """Powers of two near the roots of positive numbers: to divide by them is exact.

    ``squares / unit / unit`` lies from 1/2 to 2, or below where ``squares`` is below 1e-300. The unit is
    infinite where ``squares`` is above 1e300 or NaN: what is divided by it is 0, NaN when multiplied by it
    again.
    """
    usable = squares.clamp(1e-300, 1e300)
    mantissa, exponent = torch.frexp(usable)
    power = usable / mantissa
    power = torch.where(exponent % 2 == 0, power, power / 2)
    return torch.where(squares <= 1e300, power.sqrt(), torch.inf)
