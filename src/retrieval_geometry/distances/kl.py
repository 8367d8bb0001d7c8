r"""Kullback-Leibler divergence between Gaussians, by one matrix product for all pairs.

With augmented moments :math:`M = \begin{pmatrix} \Sigma + \mu\mu^\top & \mu \\ \mu^\top & 1 \end{pmatrix}`
and augmented precisions :math:`R = \begin{pmatrix} P & -P\mu \\ -\mu^\top P & \mu^\top P \mu \end{pmatrix}`,
:math:`P = \Sigma^{-1}`, the trace and the Mahalanobis term of [geometric] eq. 7 are one inner product
:math:`\langle M_p, R_q \rangle`. Behind the pooled whitening both are near the identity, which is subtracted:
the product then holds only how the images differ, and float32 is enough for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs, blocks, join
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
    log_det,
    pack_symmetric,
    pooled_whitener,
)
from retrieval_geometry.image_models import Gaussian


def kl_divergence(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Kullback-Leibler divergence of every p from every q ([geometric] eq. 7).

    .. math:: D(p \| q) = \frac12 \left[ \log\frac{|\Sigma_q|}{|\Sigma_p|} - D
              + \operatorname{tr}(\Sigma_q^{-1}\Sigma_p)
              + (\mu_q - \mu_p)^\top \Sigma_q^{-1} (\mu_q - \mu_p) \right]

    Not symmetric, no triangle inequality; 0 exactly where the distributions agree. "Univariate" in the
    paper's discussion means multivariate (erratum 0.7).

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in nats, at least 0.

    Raises:
        ValueError: a covariance is singular (the image is named; shrinkage is the remedy), or ``p`` and ``q``
            differ in dimension, dtype or device.

    Example:
        >>> p = Gaussian(torch.tensor([[0.0]]), torch.tensor([[[1.0]]]))
        >>> q = Gaussian(torch.tensor([[1.0]]), torch.tensor([[[2.0]]]))
        >>> kl_divergence(p, q)  # (log 2 - 1 + 1/2 + 1/2) / 2
        tensor([[0.3466]])
    """

    def compare(a: _Augmented, b: _Augmented) -> Tensor:
        own = a.moment_own.unsqueeze(1) + b.precision_own
        return (own + a.moment @ b.precision.mT).clamp_min(0) / 2

    return _compare_augmented(p, q, compare)


def symmetric_kl(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Half the sum of the divergences in both directions ([geometric] section 2.2.1).

    .. math:: \tfrac12 D(p \| q) + \tfrac12 D(q \| p)

    The determinants cancel. Symmetric, but not a metric: the triangle inequality fails, and so it does for
    its root.

    Args:
        p: P images in D dimensions.
        q: Q images.

    Returns:
        ``(P, Q)``, in nats, at least 0.

    Raises:
        ValueError: as :func:`kl_divergence`.
    """

    def compare(a: _Augmented, b: _Augmented) -> Tensor:
        own = (a.moment_own + a.precision_own).unsqueeze(1) + (b.moment_own + b.precision_own)
        crossed = a.moment @ b.precision.mT + a.precision @ b.moment.mT
        return (own + crossed).clamp_min(0) / 4

    return _compare_augmented(p, q, compare)


class _Augmented(NamedTuple):
    """Images behind the common affine map, with the identity taken off: E and F of M = I + E, R = J + F."""

    moment: Tensor
    """Packed E, ``(B, (D + 1)(D + 2) / 2)``, in the dtype of the input."""
    precision: Tensor
    """Packed F, likewise."""
    moment_own: Tensor
    """tr E - log det of the covariance, ``(B,)``, float64."""
    precision_own: Tensor
    """tr F + log det of the covariance, ``(B,)``, float64."""


def _compare_augmented(
    p: Gaussian, q: Gaussian, compare: Callable[[_Augmented, _Augmented], Tensor]
) -> Tensor:
    check_gaussians(p, q)
    frame = pooled_whitener(p, q)

    def prepare(g: Gaussian, side: str, start: int) -> _Augmented:
        # Preparing holds about ten float64 matrices an image for a moment, much more than what is kept of it.
        parts = (_augment(g[i], side, start + i.start, *frame) for i in blocks(len(g), 80 * (p.dim + 1) ** 2))
        return join(parts, len(g))

    return all_pairs(p, q, prepare, compare, bytes_per_image=p.mean.element_size() * (p.dim + 2) ** 2)


def _augment(g: Gaussian, side: str, start: int, centre: Tensor, whitener: Tensor) -> _Augmented:
    r"""Augmented moments and precisions of :math:`W (x - m)`.

    The product of M = I + E and R = J + F, with J the identity but for a zero in the corner, is
    :math:`\langle M, R \rangle = D + \operatorname{tr} E + \operatorname{tr} F + \langle E, F \rangle`,
    because the corner of E is zero.
    """
    _, lower = checked_cholesky(g, side, start)
    lower = whitener @ lower
    mean = ((g.mean.double() - centre) @ whitener.mT).unsqueeze(2)
    eye = torch.eye(g.dim, dtype=lower.dtype, device=lower.device)
    precision = torch.cholesky_inverse(lower)
    pull = precision @ mean
    moment = _bordered(lower @ lower.mT + mean @ mean.mT - eye, mean, torch.zeros_like(mean[:, :1]))
    precision = _bordered(precision - eye, -pull, mean.mT @ pull)
    moment_trace, precision_trace = (m.diagonal(dim1=-2, dim2=-1).sum(dim=-1) for m in (moment, precision))
    volume = log_det(lower)
    return _Augmented(
        pack_symmetric(moment, g.dtype),
        pack_symmetric(precision, g.dtype),
        moment_trace - volume,
        precision_trace + volume,
    )


def _bordered(block: Tensor, column: Tensor, corner: Tensor) -> Tensor:
    """Symmetric matrices ``(B, D + 1, D + 1)`` from a block, a last column and a corner."""
    top = torch.cat([block, column], dim=2)
    return torch.cat([top, torch.cat([column.mT, corner], dim=2)], dim=1)
