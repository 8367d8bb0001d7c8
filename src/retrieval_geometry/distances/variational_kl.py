"""Variational approximation of the divergence between mixtures, and its Monte Carlo reference."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry._check import check_count
from retrieval_geometry.distances._blocks import all_pairs
from retrieval_geometry.distances._certified import (
    ROUNDING,
    doubtful,
    in_dtype,
    product_rounding,
    replaced,
)
from retrieval_geometry.distances._mixtures import check_mixtures, component_kl, pooled_scale
from retrieval_geometry.distances._pairs import wanted_pairs
from retrieval_geometry.image_models import GaussianMixture

ABSOLUTE = 1e-9
"""Error in nats that no pair is computed again for: the divergence of a mixture from itself is 0."""


def variational_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Variational approximation of the divergence of every p from every q.

    .. math:: D_\mathrm{var}(p \| q) = \sum_a \omega_a \log
              \frac{\sum_{a'} \omega_{a'} e^{-D(a \| a')}}{\sum_b \omega_b e^{-D(a \| b)}}

    Source: [geometric] eq. 10; Hershey and Olsen 2007. Derived in chapter 3.

    The difference of two lower bounds is no bound itself, no metric, and can be negative (erratum 0.3).
    It equals the exact divergence where both have one component, and is 0 where p = q.

    One matrix product gives all divergences of components; the log-sum-exp of them runs over blocks that stay
    in the cache. The rounding of the product is bounded for each pair, and a pair for which it may matter is
    computed again: the rest of the batch changes a value by less than 1e-3 of itself in float32, 1e-6 in
    float64, or 1e-9.

    Args:
        p: P mixtures of K diagonal components in D dimensions.
        q: Q mixtures of L components.

    Returns:
        ``(P, Q)``, in nats, of either sign.

    Raises:
        ValueError: not mixtures, ``p`` and ``q`` differ in dimension, dtype or device, float64 descriptors
            are outside 1e-130 to 1e130 (the image is named), or a divergence is too large for the dtype (the
            pair is).

    Example:
        >>> one = torch.ones(1, 1, 1)
        >>> p, q = (GaussianMixture(one[0], m * one, one) for m in (0.0, 2.0))
        >>> variational_kl(p, q).round(decimals=3)  # one component each: (2 - 0)^2 / 2
        tensor([[2.]])
    """

    return _divergences(p, q, symmetric=False)


def symmetric_variational_kl(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Symmetric variational divergence: half the sum of both directions.

    .. math:: \tfrac12 D_\mathrm{var}(p \| q) + \tfrac12 D_\mathrm{var}(q \| p)

    Source: [geometric] section 2.2.1. Derived in chapter 3.

    Args:
        p: P mixtures of K diagonal components in D dimensions.
        q: Q mixtures of L components.

    Returns:
        ``(P, Q)``, in nats, of either sign.

    Raises:
        ValueError: as :func:`variational_kl`.
    """

    return _divergences(p, q, symmetric=True)


class _Components(NamedTuple):
    """Components behind a common shift and scaling; -D(a || b) is moment . natural + offset_b + shift_a."""

    weights: Tensor
    """``(B, K)``, float64, summing to 1."""
    moment: Tensor
    """``(B, K, 2 D)``: v + m^2 and m, in the dtype of the input."""
    natural: Tensor
    """``(B, K, 2 D)``: -1 / 2v and m / v, in the dtype of the input."""
    offset: Tensor
    """``(B, K)``: log weight - (m^2 / v + log v) / 2, in the dtype of the input."""
    shift: Tensor
    """``(B,)``: the weighted mean of (log v + D) / 2, float64."""
    own: Tensor
    """``(B,)``: the numerator of eq. 10, float64."""
    left: Tensor
    """``(B, 4)``, float64: the first two, times those of ``right``, bound the rounding of the exponents in
    units of the dtype; the last two, times those of ``right``, the rounding of the shift by the centre."""
    right: Tensor
    """``(B, 4)``, float64."""


def _divergences(p: GaussianMixture, q: GaussianMixture, symmetric: bool) -> Tensor:
    """Divergences of all pairs by products in the dtype, of some again in float64, of few entry by entry."""
    check_mixtures(p, q)
    if not (len(p) and len(q)):
        return torch.zeros(len(p), len(q), dtype=p.dtype, device=p.device)
    frame = pooled_scale(p, q)
    n_components = max(p.n_components, q.n_components)
    size = 8 * n_components * (8 * p.dim + n_components)

    units = [product_rounding(dtype, 2 * p.dim) for dtype in (p.dtype, torch.float64)]

    def compare(a: _Components, b: _Components) -> Tensor:
        """Values, and bounds of their rounding in the dtype and in float64."""
        # Eq. 10: the numerator belongs to p alone, the denominator to the pair.
        values, errors = a.own.unsqueeze(1) - _cross_terms(a, b), _errors(a, b)
        if symmetric:
            values = (values + b.own - _cross_terms(b, a).mT) / 2
            errors = (errors + _errors(b, a).mT) / 2
        own = (_own_error(a).unsqueeze(1) + _own_error(b)) * units[1]
        return torch.stack([values, *(unit * errors[0] + errors[1] + own for unit in units)])

    def prepare(m: GaussianMixture, side: str, start: int, dtype: torch.dtype = p.dtype) -> _Components:
        return _prepare_components(m, *frame, dtype)

    values, errors, least = all_pairs(p, q, prepare, compare, size, torch.float64)
    spoilt = doubtful(values, errors, p.dtype, ABSOLUTE)
    if spoilt.any() and p.dtype != torch.float64:
        of_pairs = partial(_of_pairs, symmetric=symmetric)
        wide = partial(prepare, dtype=torch.float64)
        values = replaced(values, spoilt, wanted_pairs(p, q, spoilt, wide, of_pairs, 2 * size, 2 * size))
        spoilt = spoilt & doubtful(values, least, p.dtype, ABSOLUTE)
    if spoilt.any():
        values = replaced(values, spoilt, _entry_by_entry(p, q, spoilt, symmetric))
    return in_dtype(values, p.dtype, "variational divergence")


def _errors(a: _Components, b: _Components) -> Tensor:
    """Rounding of the exponents, in units of a product and of itself, ``(2, p, q)``."""
    return torch.stack([a.left[:, cut] @ b.right[:, cut].mT for cut in (slice(2), slice(2, 4))])


def _own_error(a: _Components) -> Tensor:
    """Rounding of the numerators, in units of a product."""
    return (a.left[:, :2] * a.right[:, :2]).sum(dim=1)


def _of_pairs(a: _Components, b: _Components, symmetric: bool) -> Tensor:
    """The divergences ``(n,)`` of n pairs."""

    def one_way(a: _Components, b: _Components) -> Tensor:
        inner = torch.baddbmm(b.offset.unsqueeze(1), a.moment, b.natural.mT).logsumexp(dim=2)
        return a.own - (a.weights * inner).sum(dim=1) - a.shift

    return (one_way(a, b) + one_way(b, a)) / 2 if symmetric else one_way(a, b)


def _entry_by_entry(p: GaussianMixture, q: GaussianMixture, wanted: Tensor, symmetric: bool) -> Tensor:
    """Eq. 10 for the wanted pairs, ``(P, Q)``, float64, without any frame."""

    def one_way(p: GaussianMixture, q: GaussianMixture) -> Tensor:
        numerator, denominator = (_log_mixed(component_kl(p, other), other) for other in (p, q))
        weights = p.weights.double()
        return (weights * (numerator - denominator)).sum() / weights.sum()

    i, j = wanted.nonzero(as_tuple=True)
    found = []
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        value = one_way(p[a], q[b])
        found.append((value + one_way(q[b], p[a])) / 2 if symmetric else value)
    values = torch.zeros(wanted.shape, dtype=torch.float64, device=p.device)
    return values.index_put((i, j), torch.stack(found))


def _log_mixed(divergences: Tensor, other: GaussianMixture) -> Tensor:
    """Logarithms ``(K,)`` of the sums of the weights of one image times exp(-D)."""
    weights = other.weights[0].double()
    return (_log_weights(weights / weights.sum()) - divergences[0, :, 0]).logsumexp(dim=1)


def _log_weights(weights: Tensor) -> Tensor:
    # A weight of zero counts as one too small to matter, so that its gradient is no 0 / 0.
    return weights.clamp_min(torch.finfo(weights.dtype).tiny).log()


def _prepare_components(
    mixture: GaussianMixture, centre: Tensor, scale: Tensor, dtype: torch.dtype
) -> _Components:
    weights = mixture.weights.double()
    weights = weights / weights.sum(dim=1, keepdim=True)
    mean = (mixture.means.double() - centre) / scale
    variance = mixture.variances.double() / scale.square()
    # D(a | b) is linear in the moments of a and in the natural parameters of b: one inner product.
    moment = torch.cat([variance + mean.square(), mean], dim=2)
    natural = torch.cat([-0.5 / variance, mean / variance], dim=2)
    entropy = variance.log().sum(dim=2)
    offset = _log_weights(weights) - ((mean.square() / variance).sum(dim=2) + entropy) / 2
    # The numerator of eq. 10: log sum over a' of w_a' exp(-D(a | a')), from one product.
    inner = (offset.unsqueeze(1) + moment @ natural.mT).logsumexp(dim=2)
    shift = (weights * (entropy + mixture.dim)).sum(dim=1) / 2
    own = (weights * inner).sum(dim=1) + shift
    far = (mixture.means.detach().double().abs() + centre.abs()) / scale
    errors = _error_parts(moment.detach(), natural.detach(), offset.detach(), far)
    moment, natural, offset = (part.to(dtype) for part in (moment, natural, offset))
    return _Components(weights, moment, natural, offset, shift, own, *errors)


def _error_parts(moment: Tensor, natural: Tensor, offset: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of the rounding of the exponents: norms, the offset, and the error of the means."""
    left, right, shift = (torch.linalg.vector_norm(x, dim=2).amax(dim=1) for x in (moment, natural, far))
    shift, largest = ROUNDING * shift, offset.abs().amax(dim=1)
    lefts = [left, torch.ones_like(left), shift * (1 + 2 * left.sqrt()), 1 + left]
    return torch.stack(lefts, dim=1), torch.stack([right, largest, right, 4 * shift * right], dim=1)


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
    """A Monte Carlo estimate ``(P, Q)`` and its standard error ``(P, Q)``. Used in chapter 3."""

    value: Tensor
    """``(P, Q)``."""
    standard_error: Tensor
    """``(P, Q)``: the standard deviation of ``value``, estimated from the same samples."""


def monte_carlo_kl(
    p: GaussianMixture, q: GaussianMixture, n_samples: int = 10_000, generator: torch.Generator | None = None
) -> Estimate:
    r"""Unbiased Monte Carlo estimate of the divergence of every p from every q, with its standard error.

    .. math:: D(p \| q) \approx \frac1n \sum_{t} \log \frac{p(x_t)}{q(x_t)}, \qquad x_t \sim p

    Source: Hershey and Olsen 2007. Used in chapter 3.

    It is the reference for :func:`variational_kl`, with thousands of samples in place of K L products.

    Args:
        p: P mixtures in D dimensions.
        q: Q mixtures.
        n_samples: draws from each p, at least 2.
        generator: where the randomness comes from.

    Returns:
        An :class:`Estimate` of ``(P, Q)`` values, in nats.

    Raises:
        ValueError: not mixtures, ``p`` and ``q`` differ in dimension, dtype or device, or too few samples.
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
    # The standard deviation of the ratios, over the root of n.
    spread = torch.linalg.vector_norm(ratio - mean.unsqueeze(2), dim=2) / (n_samples - 1) ** 0.5
    return Estimate(mean.to(p.dtype), (spread / n_samples**0.5).to(p.dtype))


def _draw(mixture: GaussianMixture, n_samples: int, generator: torch.Generator | None) -> Tensor:
    """Samples ``(1, n, D)`` of a batch of one mixture."""
    # Ancestral sampling: a component by its weight, then a point of it.
    component = torch.multinomial(mixture.weights[0], n_samples, replacement=True, generator=generator)
    mean, variance = mixture.means[0, component], mixture.variances[0, component]
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return (mean + variance.sqrt() * noise).unsqueeze(0)
