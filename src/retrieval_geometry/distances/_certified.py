"""Values with a bound of their rounding: some pairs keep them, the others are computed again.

A product for all pairs rounds by what the two images are in a common frame, and the frame belongs to the
batch. A pair keeps such a value only if the bound is small beside it; all others are computed again, each
from its two images alone.
"""

import torch
from torch import Tensor

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""Relative error that the other images of a batch may cause, at most, by the dtype of the images."""

ROUNDING = 4 * torch.finfo(torch.float64).eps
"""Of a product, a sum or a factorisation in float64, relative to the norms that go into it."""


def product_rounding(dtype: torch.dtype, n_terms: int) -> float:
    r"""Error of an inner product of vectors rounded to ``dtype``, over the product of their norms.

    Rounding the vectors costs two units, by Cauchy and Schwarz; adding up costs at most :math:`\sqrt n` units
    with independent rounding errors (Higham and Mary 2019, theorem 2.4), where n units are the worst case.
    """
    return (4 + n_terms**0.5) * torch.finfo(dtype).eps / 2


def doubtful(values: Tensor, errors: Tensor, dtype: torch.dtype, absolute: float = 0.0) -> Tensor:
    """Where values ``(P, Q)`` may be off by more than the relative and the absolute tolerance; NaN is."""
    # Comparisons with NaN are false: what is no number is doubtful, and so is a bound that is none.
    values, errors = values.detach(), errors.detach()
    return ~((errors <= TOLERANCE[dtype] * values.abs() + absolute) & values.isfinite())


def replaced(values: Tensor, wanted: Tensor, exact: Tensor) -> Tensor:
    """The values ``(P, Q)`` with those of ``exact`` where wanted; replaced values get no gradient."""
    # Two where: a NaN that is only masked once would still reach the gradient, as 0 * NaN.
    return torch.where(wanted, exact, torch.where(wanted, 0.0, values))


def in_dtype(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Float64 values ``(P, Q)`` in another dtype.

    Raises:
        ValueError: a value is too large for it; the pair is named.
    """
    found = values.to(dtype)
    lost = ~found.detach().isfinite()
    if lost.any():
        i, j = lost.nonzero()[0].tolist()
        raise ValueError(
            f"the {name} of image {i} of p from image {j} of q is too large for {dtype}; bring both images "
            "to one scale" + (", or convert all to float64" if dtype == torch.float32 else "")
        )
    return found
