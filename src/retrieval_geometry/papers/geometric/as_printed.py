"""Formulas as a paper prints them where they are wrong, beside the corrected ones: for the errata only.

Nothing in the package computes with them. Each function is a printed formula, typed in as it stands; the book
and the tests show where it fails.
"""

import math

from torch import Tensor

from retrieval_geometry.distances._mixtures import check_mixtures, component_kl
from retrieval_geometry.image_models import GaussianMixture


def cross_entropy_bound(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Lower bound on :math:`\mathrm{E}_p[\log q]`, corrected ([geometric] eq. 9, erratum 0.2).

    .. math:: \mathrm{E}_p[\log q] \ge \sum_a \omega_a \log \sum_b \omega_b e^{-D(a \| b)}
              - \sum_a \omega_a H(a)

    The inner weights belong to the components of q. The left side is :math:`\mathrm{E}[\log q]`, not
    :math:`\mathrm{E}[q]` (erratum 0.1).

    Args:
        p: P mixtures in D dimensions.
        q: Q mixtures.

    Returns:
        ``(P, Q)``, in nats, float64.
    """
    # Jensen: E_a[log sum_b omega_b b] >= log sum_b omega_b exp(E_a[log b]), and E_a[log b] = -D(a || b) -
    # H(a).
    log_b = q.weights.double().log()
    return _outer_sum(p, (log_b - _divergences(p, q)).logsumexp(dim=3))


def cross_entropy_bound_as_printed(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""[geometric] eq. 9 as printed, **wrong**: the inner weight is that of the component of p.

    .. math:: \sum_a \omega_a \log \sum_b \omega_a e^{-D(a \| b)} - \sum_a \omega_a H(a)

    It exceeds :math:`\mathrm{E}_p[\log q]` for some mixtures, so it is no lower bound (erratum 0.2).

    Args:
        p: P mixtures in D dimensions.
        q: Q mixtures.

    Returns:
        ``(P, Q)``, in nats, float64.
    """
    # The only difference: omega_a, which is constant in the sum over b.
    log_a = p.weights.double().log()[:, :, None, None]
    return _outer_sum(p, (log_a - _divergences(p, q)).logsumexp(dim=3))


def _divergences(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Divergences ``(P, K, Q, L)`` of the components."""
    check_mixtures(p, q)
    return component_kl(p, q)


def _outer_sum(p: GaussianMixture, inner: Tensor) -> Tensor:
    """Sum over the components of p of weight times (``inner (P, K, Q)`` - entropy)."""
    variances = p.variances.double()
    # H(a) of a diagonal normal: half the logarithm of 2 pi e v, summed over the dimensions.
    entropy = (variances.log() + math.log(2 * math.pi) + 1).sum(dim=2) / 2
    return (p.weights.double().unsqueeze(2) * (inner - entropy.unsqueeze(2))).sum(dim=1)
