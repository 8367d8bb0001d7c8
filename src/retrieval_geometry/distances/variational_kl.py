"""Variational approximation of the divergence between mixtures, and its Monte Carlo reference."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import check_count
from retrieval_geometry.distances._blocks import all_pairs
from retrieval_geometry.distances._mixtures import check_mixtures, pooled_scale
from retrieval_geometry.image_models import GaussianMixture


def variational_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Variational approximation of the divergence of every p from every q ([geometric] eq. 10).

    .. math:: D_\mathrm{var}(p \| q) = \sum_a \omega_a \log
              \frac{\sum_{a'} \omega_{a'} e^{-D(a \| a')}}{\sum_b \omega_b e^{-D(a \| b)}}

    (Hershey and Olsen 2007.) The difference of two lower bounds: not a bound itself, not a metric, and it can
    be negative (erratum 0.3). Equal to the exact divergence where both have one component, and 0 where p = q.

    All divergences of components are one matrix product; its log-sum-exp is taken over blocks that stay in
    the cache.

    Args:
        p: P mixtures of K diagonal components in D dimensions.
        q: Q mixtures of L components.

    Returns:
        ``(P, Q)``, in nats, of either sign.

    Raises:
        TypeError: not mixtures.
        ValueError: ``p`` and ``q`` differ in dimension, dtype or device.

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> p, q = (GaussianMixture(one[0], m * one, one) for m in (0.0, 2.0))
        >>> variational_kl(p, q)  # one component each: (2 - 0)^2 / 2
        tensor([[2.]])
    """

    def compare(a: _Components, b: _Components) -> Tensor:
        return a.own.unsqueeze(1) - _cross_terms(a, b)

    return _compare_components(p, q, compare)


def symmetric_variational_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Half the sum of both directions ([geometric] section 2.2.1).

    .. math:: \tfrac12 D_\mathrm{var}(p \| q) + \tfrac12 D_\mathrm{var}(q \| p)

    Args:
        p: P mixtures of K diagonal components in D dimensions.
        q: Q mixtures of L components.

    Returns:
        ``(P, Q)``, in nats, of either sign.

    Raises:
        TypeError, ValueError: as :func:`variational_kl`.
    """

    def compare(a: _Components, b: _Components) -> Tensor:
        crossed = _cross_terms(a, b) + _cross_terms(b, a).mT
        return (a.own.unsqueeze(1) + b.own - crossed) / 2

    return _compare_components(p, q, compare)


class _Components(NamedTuple):
    """Components behind a common shift and scaling; -D(a || b) is moment . natural + offset_b + shift_a."""

    weights: Tensor
    """``(B, K)``, float64, summing to 1."""
    moment: Tensor
    """``(B, K, 2 D)``: v + m^2 and m, in the dtype of the input."""
    natural: Tensor
    """``(B, K, 2 D)``: -1 / 2v and m / v, likewise."""
    offset: Tensor
    """``(B, K)``: log weight - (m^2 / v + log v) / 2, likewise."""
    shift: Tensor
    """``(B,)``: the weighted mean of (log v + D) / 2, float64."""
    own: Tensor
    """``(B,)``: the numerator of eq. 10, float64."""


def _compare_components(
    p: GaussianMixture, q: GaussianMixture, compare: Callable[[_Components, _Components], Tensor]
) -> Tensor:
    check_mixtures(p, q)
    centre, scale = pooled_scale(p, q)

    def prepare(mixture: GaussianMixture, side: str, start: int) -> _Components:
        return _prepare_components(mixture, centre, scale)

    n_components = max(p.n_components, q.n_components)
    return all_pairs(p, q, prepare, compare, 8 * n_components * (8 * p.dim + n_components))


def _prepare_components(mixture: GaussianMixture, centre: Tensor, scale: Tensor) -> _Components:
    weights = mixture.weights.double()
    weights = weights / weights.sum(dim=1, keepdim=True)
    mean = (mixture.means.double() - centre) / scale
    variance = mixture.variances.double() / scale.square()
    moment = torch.cat([variance + mean.square(), mean], dim=2)
    natural = torch.cat([-0.5 / variance, mean / variance], dim=2)
    entropy = variance.log().sum(dim=2)
    # A weight of zero counts as one too small to matter, so that its gradient is no 0 / 0.
    log_weight = weights.clamp_min(torch.finfo(weights.dtype).tiny).log()
    offset = log_weight - ((mean.square() / variance).sum(dim=2) + entropy) / 2
    inner = (offset.unsqueeze(1) + moment @ natural.mT).logsumexp(dim=2)
    shift = (weights * (entropy + mixture.dim)).sum(dim=1) / 2
    own = (weights * inner).sum(dim=1) + shift
    moment, natural, offset = (part.to(mixture.dtype) for part in (moment, natural, offset))
    return _Components(weights, moment, natural, offset, shift, own)


def _cross_terms(a: _Components, b: _Components) -> Tensor:
    """Weighted sums over ``a`` of the logarithms of the weighted sums over ``b`` of exp(-D), ``(p, q)``."""
    rows = []
    n_a, n_b = a.weights.shape[1], b.weights.shape[1]
    # Blocks of 4 MB stay in a CPU's cache through the passes of the log-sum-exp; a GPU wants large ones.
    size = max(1, (2**22 if a.moment.device.type == "cpu" else 2**29) // (4 * n_a * n_b))
    for weights, moment in zip(a.weights, a.moment, strict=True):
        inner = [
            torch.addmm(offset.flatten(), moment, natural.flatten(0, 1).mT)
            .view(n_a, -1, n_b)
            .logsumexp(dim=2)
            for offset, natural in zip(b.offset.split(size), b.natural.split(size), strict=True)
        ]
        rows.append(weights @ torch.cat(inner, dim=1).double())
    return torch.stack(rows) + a.shift.unsqueeze(1)


class Estimate(NamedTuple):
    """A Monte Carlo estimate."""

    value: Tensor
    """``(P, Q)``."""
    standard_error: Tensor
    """``(P, Q)``: the standard deviation of ``value``, estimated from the same samples."""


def monte_carlo_kl(
    p: GaussianMixture, q: GaussianMixture, n_samples: int = 10_000, generator: torch.Generator | None = None
) -> Estimate:
    r"""Unbiased estimate of the divergence of every p from every q, with its standard error.

    .. math:: D(p \| q) \approx \frac1n \sum_{t} \log \frac{p(x_t)}{q(x_t)}, \qquad x_t \sim p

    The reference for :func:`variational_kl`; it needs thousands of samples where that needs K L products.

    Args:
        p: P mixtures in D dimensions.
        q: Q mixtures.
        n_samples: draws from each p, at least 2.
        generator: where the randomness comes from.

    Returns:
        An :class:`Estimate`, in nats.

    Raises:
        TypeError: not mixtures.
        ValueError: ``p`` and ``q`` differ in dimension, dtype or device, or too few samples.
    """
    check_mixtures(p, q)
    check_count(n_samples, "n_samples", at_least=2)
    ratio = torch.empty(len(p), len(q), n_samples, dtype=torch.float64, device=p.device)
    for i in range(len(p)):
        x = _draw(p[i], n_samples, generator)
        log_p = p[i].log_prob(x)
        for j in range(len(q)):
            ratio[i, j] = (log_p - q[j].log_prob(x))[0]
    mean = ratio.mean(dim=2)
    spread = torch.linalg.vector_norm(ratio - mean.unsqueeze(2), dim=2) / (n_samples - 1) ** 0.5
    return Estimate(mean.to(p.dtype), (spread / n_samples**0.5).to(p.dtype))


def _draw(mixture: GaussianMixture, n_samples: int, generator: torch.Generator | None) -> Tensor:
    """Samples ``(1, n, D)`` of a batch of one mixture."""
    component = torch.multinomial(mixture.weights[0], n_samples, replacement=True, generator=generator)
    mean, variance = mixture.means[0, component], mixture.variances[0, component]
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return (mean + variance.sqrt() * noise).unsqueeze(0)
