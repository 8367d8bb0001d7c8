r"""Lower bounds of distances, for all pairs at the price of matrix products.

Each is a theorem less a margin for rounding, so that a bound is never above the distance that is computed for
the same pair.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from retrieval_geometry.distances._blocks import all_pairs
from retrieval_geometry.distances._gaussians import (
    check_gaussians,
    checked_cholesky,
    pack_symmetric,
    pooled_whitener,
    product_with_each,
    squared_euclidean,
)
from retrieval_geometry.distances.riemannian import euclidean_by_product
from retrieval_geometry.distances.wasserstein import factor_features
from retrieval_geometry.image_models import Gaussian

MARGIN = 1e-9
"""Rounding of a fidelity or a logarithm in float64, relative to the size of what it is computed from."""

ROUNDING = 1e-13
"""Rounding of a squared trace in float64, relative."""


def wasserstein2_squared_lower_bound(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Lower bounds ``(P, Q)`` of the squared 2-Wasserstein distance, from upper bounds of the fidelity F.

    Three bounds, of which the smallest counts:

    - pinching: F does not decrease if both covariances lose what is off the diagonal, in any common basis;
      here that of the average covariance: :math:`F \le \sum_i \sqrt{a_i b_i}`;
    - super-fidelity: :math:`F^2 \le \operatorname{tr} \Sigma_p \Sigma_q + \sqrt{(\operatorname{tr}^2 \Sigma_p
      - \operatorname{tr} \Sigma_p^2) (\operatorname{tr}^2 \Sigma_q - \operatorname{tr} \Sigma_q^2)}`;
    - duality: :math:`F^2 \le \operatorname{tr} (Y^{-1} \Sigma_p) \operatorname{tr} (Y \Sigma_q)` for any
      positive definite Y; here the transport map from the average covariance to the query's.
    """
    check_gaussians(p, q)
    average = _average(p, q)
    values, basis = torch.linalg.eigh(average)
    frame = _Frame(basis, (basis * values.clamp_min(0).sqrt()) @ basis.mT, _inverse_root(values, basis))

    def prepare(g: Gaussian, side: str, start: int) -> _Spread:
        parts = [_spread(g[i : i + 8], side, start + i, frame) for i in range(0, len(g), 8)]
        return _Spread(*(torch.cat(part) for part in zip(*parts, strict=True)))

    kept = 8 * p.dim * (p.dim + 1)
    return all_pairs(p, q, prepare, _squared_bounds, kept, torch.float64)


class _Frame(NamedTuple):
    """Of the average covariance, ``(D, D)`` each."""

    basis: Tensor
    root: Tensor
    inverse_root: Tensor


class _Spread(NamedTuple):
    """What the bounds need of some images, in float64."""

    mean: Tensor
    """``(B, D)``."""
    trace: Tensor
    """``(B,)``."""
    purity: Tensor
    """``(B,)``, the trace of the square."""
    diagonal_roots: Tensor
    """``(B, D)``, standard deviations along the common basis."""
    packed: Tensor
    """``(B, D (D + 1) / 2)``, the covariances."""
    transport: Tensor
    """Likewise, the dual matrix Y; of the queries only."""
    transport_trace: Tensor
    """``(B,)``, the trace of the covariance times the inverse of Y."""


def _inverse_root(values: Tensor, basis: Tensor) -> Tensor:
    """The pseudo-inverse of the root of the average; any approximation makes a valid bound."""
    kept = values > 1e-14 * values[-1]
    return (basis * torch.where(kept, torch.where(kept, values, 1.0).rsqrt(), 0.0)) @ basis.mT


def _spread(g: Gaussian, side: str, start: int, frame: _Frame) -> _Spread:
    features = factor_features(g, side, start)
    # Not the stored covariance, which float32 has rounded: the distance uses the factor.
    cov = features.factor @ features.factor.mT
    packed = pack_symmetric(cov, torch.float64)
    turned = product_with_each(frame.basis.mT, features.factor)
    transport, trace = packed[:, :0], packed[:, 0]
    if side == "p":
        transport, trace = _transport_maps(cov, features.factor, frame)
    return _Spread(
        features.mean,
        features.trace,
        packed.square().sum(dim=1),
        turned.square().sum(dim=2).sqrt(),
        packed,
        transport,
        trace,
    )


def _transport_maps(covs: Tensor, factors: Tensor, frame: _Frame) -> tuple[Tensor, Tensor]:
    r"""For each covariance S the dual matrix Y, packed, and the trace of :math:`Y^{-1} S`.

    Y is the transport map T from the average M, with :math:`T M T = S`, plus a small multiple of the
    identity, because T is singular where S is. A positive definite Y is all that the bound needs, so nothing
    here has to be accurate but the trace, which is computed from Y as it is.
    """
    values, turned = torch.linalg.eigh(frame.root @ covs @ frame.root)
    roots = values.clamp_min(0).sqrt().unsqueeze(1)
    half = frame.inverse_root @ turned
    transport = (half * roots) @ half.mT
    shift = 1e-9 * transport.diagonal(dim1=1, dim2=2).sum(dim=1) + torch.finfo(transport.dtype).tiny
    eye = torch.eye(transport.shape[-1], dtype=transport.dtype, device=transport.device)
    lower, info = torch.linalg.cholesky_ex(transport + shift[:, None, None] * eye)
    lower = torch.where((info == 0)[:, None, None], lower, eye)
    trace = torch.linalg.solve_triangular(lower, factors, upper=False).square().sum(dim=(1, 2))
    return pack_symmetric(lower @ lower.mT, torch.float64), trace


def _squared_bounds(left: _Spread, right: _Spread) -> Tensor:
    pinched = left.diagonal_roots @ right.diagonal_roots.mT
    # The differences cancel for nearly rank-one images: rounding is added where it could lower the bound.
    squares = [side.trace.square() for side in (left, right)]
    mixed = [
        (square - side.purity + ROUNDING * square).clamp_min(0).sqrt()
        for side, square in zip((left, right), squares, strict=True)
    ]
    products = left.packed @ right.packed.mT + ROUNDING * torch.outer(left.trace, right.trace)
    super_fidelity = (products + torch.outer(*mixed)).clamp_min(0).sqrt()
    dual = (left.transport_trace.unsqueeze(1) * (left.transport @ right.packed.mT)).clamp_min(0).sqrt()
    fidelity = torch.minimum(torch.minimum(pinched, super_fidelity), dual)
    size = left.trace.unsqueeze(1) + right.trace
    spread = (size - 2 * fidelity - MARGIN * size).clamp_min(0)
    return squared_euclidean(left.mean, right.mean) * (1 - MARGIN) + spread


class _Logs(NamedTuple):
    """Covariances behind the common whitening, in float64."""

    packed: Tensor
    """``(B, D (D + 1) / 2)``, their logarithms."""
    span: Tensor
    """``(B,)``, the logarithms of their condition numbers."""


def affine_invariant_lower_bound(p: Gaussian, q: Gaussian) -> Tensor:
    r"""Lower bounds ``(P, Q)`` of the affine-invariant distance: log-Euclidean behind a common whitening.

    The exponential map does not shrink distances of positive definite matrices (Bhatia 2007, theorem 6.1.4):
    :math:`\| \log A - \log B \|_F \le d(A, B)`. A common congruence leaves d alone, and near the identity the
    two sides almost agree. Rounding grows with the condition numbers, and so does what is taken off.
    """
    check_gaussians(p, q)
    _, whitener = pooled_whitener(p, q)

    def prepare(g: Gaussian, side: str, start: int) -> _Logs:
        parts = [_whitened_logs(g[i : i + 8], side, start + i, whitener) for i in range(0, len(g), 8)]
        return _Logs(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def compare(a: _Logs, b: _Logs) -> Tensor:
        rounding = MARGIN * p.dim + ROUNDING * (a.span.unsqueeze(1) + b.span).exp()
        return (euclidean_by_product(a.packed, b.packed) * (1 - MARGIN) - rounding).clamp_min(0)

    return all_pairs(p, q, prepare, compare, 4 * p.dim * (p.dim + 1), torch.float64)


def _whitened_logs(g: Gaussian, side: str, start: int, whitener: Tensor) -> _Logs:
    lower = product_with_each(whitener, checked_cholesky(g, side, start)[1])
    values, vectors = torch.linalg.eigh(lower @ lower.mT)
    logs = values.clamp_min(torch.finfo(values.dtype).tiny).log()
    packed = pack_symmetric((vectors * logs.unsqueeze(1)) @ vectors.mT, torch.float64)
    return _Logs(packed, logs[:, -1] - logs[:, 0])


def _average(p: Gaussian, q: Gaussian) -> Tensor:
    total = torch.zeros(p.dim, p.dim, dtype=torch.float64, device=p.device)
    for g in (p, q):
        for cov in g.cov.split(64):
            total += cov.double().sum(dim=0)
    return (total + total.mT) / (2 * (len(p) + len(q)))
